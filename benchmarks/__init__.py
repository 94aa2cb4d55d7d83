"""One script for each subject of speed: the alternative and ours, interleaved in one run. See README.md."""
