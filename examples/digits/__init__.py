"""Small spiking transformers for 8 x 8 digits: trained, made integer, evaluated."""
