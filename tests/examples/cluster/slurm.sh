#!/bin/sh
#SBATCH --job-name=megabyte
#SBATCH --array=0-999%100
#SBATCH --cpus-per-task=1
# One task of a Slurm array takes its share of the shards in a folder that all machines see. From
# the repository, with tools/mbrun built:
#     sbatch tests/examples/cluster/slurm.sh compress FOLDER
set -eu
verb=$1 folder=$2 each=tests/examples/cluster/shard.sh
export MBRUN="${MBRUN-tools/mbrun}" MEGABYTE_MODEL="${MEGABYTE_MODEL-models/text.mb}"
names=$(sh $each list "$verb" "$folder") # a failure of its own would be lost in the pipe
[ -n "$names" ] || { echo "slurm.sh: $folder has no shards" >&2; exit 1; }
printf '%s\n' "$names" | sed -n "$((SLURM_ARRAY_TASK_ID + 1))~${SLURM_ARRAY_TASK_COUNT}p" |
    while read -r file; do sh $each "$verb" "$folder/$file"; done
