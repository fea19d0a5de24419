"""Shards of a folder that all machines see, as a Spark job; from the repository:
    spark-submit tests/examples/cluster/spark.py compress FOLDER"""
import os
import subprocess
import sys

each, (verb, folder) = os.path.abspath("tests/examples/cluster/shard.sh"), sys.argv[1:]
names = subprocess.check_output(["sh", each, "list", verb, folder], text=True).split()
paths = [os.path.join(os.path.abspath(folder), name) for name in names]
env = {"PATH": os.environ["PATH"], "MBRUN": os.path.abspath("tools/mbrun"),
       "MEGABYTE_MODEL": os.environ.get("MEGABYTE_MODEL", os.path.abspath("models/text.mb")),
       "MBRUN_OPTIONS": os.environ.get("MBRUN_OPTIONS", "")}
from pyspark import SparkContext
shards = SparkContext.getOrCreate().parallelize(paths, len(paths)) # a partition each
shards.pipe(f"xargs -n 1 sh {each} {verb}", env, checkCode=True).count()
