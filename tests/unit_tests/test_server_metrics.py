"""What a server tells Prometheus, and what is made of it."""

from typing import Any

import pytest

from langchain_glm4v.server.metrics import Load, load, parse
from langchain_glm4v.server.probes import Client

TOLD = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b\\"c\\\\d"} 3.0
vllm:num_requests_running{engine="1",model_name="x"} 2.0
vllm:num_requests_waiting{engine="0"} 7.0
vllm:kv_cache_usage_perc{engine="0"} 0.125
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:prefix_cache_queries_total{engine="0"} 200.0
vllm:prefix_cache_hits_total{engine="0"} 50.0
vllm:mm_cache_queries_total{engine="0"} 0.0
vllm:mm_cache_hits_total{engine="0"} 0.0
vllm:generation_tokens_total{engine="0"} 1.2e+06
vllm:request_success_total{engine="0",finished_reason="stop"} 4.0
vllm:request_success_total{engine="0",finished_reason="length"} 1.0
python_info 1.0 1700000000000
nothing that is a sample
odd{le="+Inf"} NaN
broken{a="b" 1
worse x
"""


def test_samples_of_several_engines_come_to_one_load() -> None:
    assert load(parse(TOLD)) == Load(
        running=5,
        waiting=7,
        kv_cache_usage=0.5,
        requests=5,
        prompt_tokens=None,
        generation_tokens=1_200_000,
        prefix_cache_hits=0.25,
        media_cache_hits=None,
    )


def test_labels_are_read_and_the_rest_is_passed_over() -> None:
    found = parse(TOLD)
    labels, value = found["vllm:num_requests_running"][0]
    assert (labels, value) == ({"engine": "0", "model_name": 'a}b"c\\d'}, 3.0)
    assert found["python_info"] == [({}, 1.0)]
    assert [labels for labels, _ in found["odd"]] == [{"le": "+Inf"}]
    assert not {"broken", "worse", "nothing", "#"} & found.keys()


@pytest.mark.parametrize("text", ["", "{}", "<html>", 'vllm:num_requests_running{engine="0"}'])
def test_who_tells_nothing_has_an_unknown_load(text: str) -> None:
    assert load(parse(text)) == Load()


def test_reply_that_is_cut_short_is_an_error_of_the_connection(web: Any) -> None:
    web.give("/metrics", b"vllm:num", content_length="100")
    with pytest.raises(ConnectionError, match="/metrics gave no whole reply: IncompleteRead"):
        Client("127.0.0.1", web.server_port, "key").get("/metrics")
