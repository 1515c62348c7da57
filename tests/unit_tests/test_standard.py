"""LangChain's standard tests that need no server."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_glm4v import ChatGLM4V


class TestChatGLM4V(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatGLM4V

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "zai-org/GLM-4.1V-9B-Thinking"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        variables = {"GLM4V_BASE_URL": "http://glm.invalid/v1", "GLM4V_API_KEY": "key"}
        attributes = {"openai_api_base": "http://glm.invalid/v1", "openai_api_key": "key"}
        return variables, {}, attributes

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True
