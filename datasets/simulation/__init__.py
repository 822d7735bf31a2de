"""The parts of US-sim: sites and crops (tables), phenology, canopy, weather, atmosphere and blocks of series."""
