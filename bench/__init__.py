"""What the tops cost: cells and clock rates, measured with open tools and kept as data."""
