"""Speed, as ratios to a floor and to a peer in the same run."""
