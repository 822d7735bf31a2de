"""What `datasets.images` is made of: grids, raster files, names, dates, offsets and values of satellite images."""
