"""The stages of a cascade: each gives candidates a number, and costs more than the one before."""
