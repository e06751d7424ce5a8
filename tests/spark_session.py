"""A small Spark for tests; those that need it are left out where it or Java is missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def need_spark() -> None:
    """Leave the test out where the engine cannot run."""
    for name in ("sqlglot", "pyspark"):
        pytest.importorskip(name, reason="the engine spark needs `pip install 'ntulm[spark]'`")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=home and f"{home}/bin") is None:
        pytest.skip("the engine spark needs Java 17")


@contextmanager
def small_spark() -> Iterator[Any]:
    """A session of two threads that splits what is small, too, so that the order across partitions counts."""
    need_spark()
    from pyspark.sql import SparkSession

    folder = tempfile.mkdtemp(prefix="spark-")
    settings = {
        "spark.local.dir": folder,
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "3",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    builder = SparkSession.builder.appName("tests")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()
        shutil.rmtree(folder, ignore_errors=True)
