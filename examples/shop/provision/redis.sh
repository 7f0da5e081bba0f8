#!/bin/sh
set -eu
# Stands for what sets up Redis.
echo "the cache is ready"
