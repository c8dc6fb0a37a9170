"""Looking at a system that runs: why it stalls, who blocks the event loop, what its topology is."""
