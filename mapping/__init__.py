"""From a classifier and images to a map, and from a map to its accuracy, areas, samples and fields."""
