"""About ten figures of a run by readable names: what `dvc metrics show`, `dvc metrics diff`, `dvc exp show` print.

All other figures are outputs too, under `metrics/` and `data/evaluate/`, but no metrics of DVC. Library of `report`.
"""

from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.report.tables import ANY, Record, Results

PERPLEXITY = "Perplexity"


def headlines(results: Results, layout: Layout) -> Record:
    """The variant that stands for NTULM: its score and gain in % per measure; what the table knows; how good it is."""
    found: Record = {}
    for _, records in results.measures():
        own = next((one for one in records if one["system"] == results.ntulm), None)
        shown = own or next((one for one in records if one["system"] == results.baseline), records[0])
        family, metric = shown.get("family", PERPLEXITY), shown.get("metric", "bits")
        found[f"{family} {metric}"] = shown["value"]
        if own and own["gain"] is not None:
            found[f"{family} gain %"] = own["gain"]
    tested = [one for one in results.coverage if one["split"] == "test" and one["type"] == ANY]
    if posts := sum(one["posts"] for one in tested):
        found["known NTU %"] = 100 * sum(one["posts"] * one["share_known"] for one in tested) / posts
    embeddings, corpus = layout.metrics("embeddings"), layout.metrics("corpus")
    if embeddings.exists():
        found["link MRR"] = read_json(embeddings)["mrr"]
    if corpus.exists():
        found["posts"] = read_json(corpus)["posts"]
    return found
