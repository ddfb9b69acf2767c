"""The metric that training watches on the dev split, whatever metrics are reported."""

WATCHED = "ndcg@10"
