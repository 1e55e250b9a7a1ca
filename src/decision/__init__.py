"""What a grid's numbers say, which run is promoted, and the report on both."""
