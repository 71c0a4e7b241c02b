"""Speed, each figure as a ratio to a floor and to a peer of the same run."""
