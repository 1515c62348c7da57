"""What is known of the models of the family and of the services that offer them."""

import pytest

from langchain_glm4v.profiles import (
    BOX,
    BOX_END,
    CONTROL_TOKENS,
    HOSTS,
    SAMPLING,
    Profile,
    Sampling,
    find,
    find_host,
)


@pytest.mark.parametrize(
    ("name", "context", "answer_tag", "native_tools", "thinking_off"),
    [
        ("zai-org/GLM-4.1V-9B-Thinking", 65_536, True, False, "prefill"),
        ("thudm/glm-4.1v-9b-thinking", 65_536, True, False, "prefill"),
        ("glm-4.1v-thinking-flashx", 65_536, True, False, "prefill"),
        ("zai-org/GLM-4.5V-FP8", 65_536, False, True, "template"),
        ("glm-4.6v-flash", 131_072, False, True, "template"),
        ("zai-org/AutoGLM-Phone-9B-Multilingual", 65_536, True, False, None),
    ],
)
def test_models(
    name: str, context: int, thinking_off: str | None, *, answer_tag: bool, native_tools: bool
) -> None:
    profile = find(name)

    assert isinstance(profile, Profile)
    assert profile.context_tokens == context
    assert profile.output_tokens < context
    assert (profile.answer_tag, profile.native_tools) == (answer_tag, native_tools)
    assert profile.thinking_off == thinking_off


@pytest.mark.parametrize("name", ["tiny", "/models/my-checkpoint", "", "glm-4.7"])
def test_a_name_that_tells_nothing(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://open.bigmodel.cn/api/paas/v4", True),
        ("https://API.Z.AI/api/paas/v4/", True),
        ("https://openrouter.ai:443/api/v1", True),
        ("https://api.siliconflow.cn/v1", True),
        ("http://127.0.0.1:8000/v1", False),
        ("http://openrouter.ai.example/v1", False),
        ("http://vllm.example/openrouter.ai/v1", False),
        ("", False),
    ],
)
def test_hosts(url: str, *, known: bool) -> None:
    assert (find_host(url) is not None) is known


def test_no_host_is_sent_the_fields_of_vllm() -> None:
    of_vllm = {"skip_special_tokens", "repetition_detection", "thinking_token_budget", "cache_salt"}
    for host in HOSTS.values():
        assert not host.accepts & of_vllm
        assert not host.accepts & host.refuses


def test_presets_state_all() -> None:
    assert SAMPLING["default"] == Sampling(0.8, 0.6, 2)
    assert SAMPLING["deterministic"].temperature == 0
    assert all(0 < preset.top_p <= 1 and preset.top_k >= 1 for preset in SAMPLING.values())


def test_tags_are_single_tokens_of_the_miniature(vllm: object) -> None:
    tokenizer = vllm.tokenizer  # type: ignore[attr-defined]
    for tag in (*CONTROL_TOKENS, BOX, BOX_END):
        assert len(tokenizer.encode(tag, add_special_tokens=False).ids) == 1
