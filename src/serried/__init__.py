"""serried: the open stack above the chip."""
