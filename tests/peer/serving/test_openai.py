"""The openai client: chat, completions, streams, tools, structured output, log-probabilities, errors."""

import asyncio
import json
import math
import re

import pytest

openai = pytest.importorskip("openai")

import server as serving

HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
COUNT = "Count: 1, 2, 3, 4,"


@pytest.fixture(scope="module")
def client(smollm2):
    return openai.OpenAI(base_url=smollm2.url + "/v1", api_key="none", max_retries=0, timeout=120)


def test_models(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["smollm2"]
    assert models[0].max_model_len == 8192


def test_chat(client):
    answer = client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=20, temperature=0)
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 20


def test_chat_stream_equals_the_whole_answer(client):
    options = dict(model="smollm2", messages=HELLO, max_tokens=24, temperature=0.8, seed=7)
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and set(reasons[:-1]) == {None}


def test_completion_forms_of_the_prompt(client, smollm2):
    ids = smollm2.post("/tokenize", {"prompt": COUNT})[1]["tokens"]
    texts = set()
    for prompt in (COUNT, [COUNT], ids, [ids]):
        answer = client.completions.create(model="smollm2", prompt=prompt, max_tokens=8, temperature=0)
        assert answer.usage.prompt_tokens == len(ids)
        texts.add(answer.choices[0].text)
    assert len(texts) == 1 and "5" in texts.pop()


def test_several_prompts_and_choices(client):
    answer = client.completions.create(model="smollm2", prompt=["One", "Two"], n=3, max_tokens=5, temperature=1, seed=1)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage.completion_tokens <= 30
    stream = client.completions.create(model="smollm2", prompt=["One", "Two"], n=3, max_tokens=5, temperature=1,
                                       seed=1, stream=True)
    texts = {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert [texts.get(i, "") for i in range(6)] == [choice.text for choice in answer.choices]


def test_seed_gives_the_same_text_in_any_company(client):
    def ask():
        return client.completions.create(model="smollm2", prompt="Once upon a time", max_tokens=16, temperature=1,
                                         seed=42).choices[0].text

    alone = ask()

    async def together():
        many = openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0, timeout=120)
        others = [many.completions.create(model="smollm2", prompt=f"Story {i}:", max_tokens=24, temperature=1)
                  for i in range(6)]
        mine = many.completions.create(model="smollm2", prompt="Once upon a time", max_tokens=16, temperature=1, seed=42)
        return (await asyncio.gather(mine, *others))[0].choices[0].text

    assert asyncio.run(together()) == alone


def test_stop_strings_and_token_ids(client, smollm2):
    answer = client.completions.create(model="smollm2", prompt=COUNT, max_tokens=30, temperature=0, stop=[" 7"])
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].stop_reason == " 7"
    assert " 6" in answer.choices[0].text and "7" not in answer.choices[0].text
    kept = client.completions.create(model="smollm2", prompt=COUNT, max_tokens=30, temperature=0, stop=[" 7"],
                                     extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].text == answer.choices[0].text + " 7"
    comma = smollm2.post("/tokenize", {"prompt": ",", "add_special_tokens": False})[1]["tokens"][0]
    by_id = client.completions.create(model="smollm2", prompt=COUNT, max_tokens=30, temperature=0,
                                      extra_body={"stop_token_ids": [comma]})
    assert by_id.choices[0].stop_reason == comma and "," not in by_id.choices[0].text


def test_ignore_eos_gives_exactly_the_tokens_asked_for(client):
    answer = client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=60, temperature=0,
                                            extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 60 and answer.choices[0].finish_reason == "length"


def test_chat_logprobs(client):
    answer = client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=8, temperature=0, logprobs=True,
                                            top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for position in content:
        assert len(position.top_logprobs) == 3
        assert position.logprob == max(top.logprob for top in position.top_logprobs) <= 0
        assert bytes(position.bytes).decode(errors="replace") == position.token
    text = b"".join(bytes(position.bytes) for position in content).decode(errors="replace")
    assert text.startswith(answer.choices[0].message.content)


def test_completion_logprobs_and_echo(client):
    scored = client.completions.create(model="smollm2", prompt=COUNT, max_tokens=0, echo=True, logprobs=2, temperature=0)
    choice = scored.choices[0]
    assert choice.text == COUNT  # usage counts one token, as in vLLM: a step has to run
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    assert "".join(choice.logprobs.tokens) == COUNT
    assert choice.logprobs.text_offset == [sum(map(len, choice.logprobs.tokens[:i]))
                                           for i in range(len(choice.logprobs.tokens))]
    longer = client.completions.create(model="smollm2", prompt=COUNT, max_tokens=4, echo=True, logprobs=2, temperature=0)
    assert longer.choices[0].text.startswith(COUNT) and len(longer.choices[0].text) > len(COUNT)
    n = len(choice.logprobs.tokens)
    assert longer.choices[0].logprobs.token_logprobs[1:n] == pytest.approx(choice.logprobs.token_logprobs[1:n], abs=1e-6)


def test_structured_output(client):
    schema = {"type": "object", "required": ["name", "age", "tags"], "additionalProperties": False,
              "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                             "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3}}}
    answer = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": "Describe a person as JSON."}], max_tokens=120,
        temperature=0.7, seed=3,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}})
    person = json.loads(answer.choices[0].message.content)
    assert set(person) == {"name", "age", "tags"} and 0 <= person["age"] <= 120 and set(person["tags"]) <= {"a", "b"}

    for extra, pattern in (({"structured_outputs": {"choice": ["red", "green"]}}, "red|green"),
                           ({"structured_outputs": {"regex": r"[A-Z]{3}-\d{4}"}}, r"[A-Z]{3}-\d{4}")):
        text = client.completions.create(model="smollm2", prompt="Answer:", max_tokens=20, temperature=1,
                                         extra_body=extra).choices[0].text
        assert re.fullmatch(pattern, text), text


def test_tools(client):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
        "additionalProperties": False}}}
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    named = {"type": "function", "function": {"name": "get_weather"}}
    options = dict(model="smollm2", messages=messages, tools=[tool], max_tokens=100, temperature=0)
    call = client.chat.completions.create(**options, tool_choice=named).choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and set(json.loads(call.function.arguments)) == {"city"}

    answer = client.chat.completions.create(**options, tool_choice="required").choices[0]
    assert answer.finish_reason == "tool_calls"
    assert json.loads(answer.message.tool_calls[0].function.arguments).keys() == {"city"}

    arguments, names, ids, reason = "", [], [], None
    for chunk in client.chat.completions.create(**options, tool_choice="required", stream=True):
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                if part.index > 0:
                    continue
                if part.id:
                    ids.append(part.id)
                    assert part.type == "function"
                if part.function.name:
                    names.append(part.function.name)
                arguments += part.function.arguments or ""
    assert names == ["get_weather"] and len(ids) == 1 and json.loads(arguments).keys() == {"city"}
    assert reason == "tool_calls"

    assert client.chat.completions.create(**options, tool_choice="none").choices[0].message.tool_calls is None
    client.chat.completions.create(**options, tool_choice="auto")


def test_errors_have_the_clients_classes(client):
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        create(model="gpt-4", messages=HELLO)
    for bad in (dict(temperature=3), dict(top_p=0), dict(n=0), dict(max_tokens=0), dict(messages=[]),
                dict(messages=[{"role": "user", "content": 5}]), dict(logprobs=False, top_logprobs=2),
                dict(stream=False, stream_options={"include_usage": True}), dict(tools=[]),
                dict(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}})):
        with pytest.raises(openai.BadRequestError) as caught:
            create(**(dict(model="smollm2", messages=HELLO, max_tokens=1) | bad))
        assert caught.value.body["message"] and caught.value.body["code"] == 400, bad
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8192 tokens"):
        client.completions.create(model="smollm2", prompt=[5] * 8192, max_tokens=1)
    assert create(model="", messages=HELLO, max_tokens=1, extra_body={"unknown_field": 1}).choices


def test_a_client_that_leaves_frees_its_blocks(smollm2):
    async def leave():
        client = openai.AsyncOpenAI(base_url=smollm2.url + "/v1", api_key="none", max_retries=0)
        streams = [await client.completions.create(model="smollm2", prompt=f"Tale {i}", max_tokens=4000, stream=True,
                                                   extra_body={"ignore_eos": True}) for i in range(8)]
        for stream in streams:
            await anext(aiter(stream))
        assert smollm2.metric("vllm:num_requests_running") == 8
        for stream in streams:
            await stream.close()
        await client.close()

    before = smollm2.metric("vllm:request_success_total", finished_reason="abort")
    asyncio.run(leave())
    smollm2.wait_until_idle()
    assert smollm2.metric("vllm:request_success_total", finished_reason="abort") == before + 8


def test_keys():
    with serving.Server("--api-key", "one", "two", "--load-format", "mock") as server:
        good = openai.OpenAI(base_url=server.url + "/v1", api_key="two", max_retries=0)
        assert good.models.list().data
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=server.url + "/v1", api_key="three", max_retries=0).models.list()


def test_cached_tokens_are_reported(client):
    prompt = "The same long beginning again and again. " * 40
    client.completions.create(model="smollm2", prompt=prompt, max_tokens=1)
    again = client.completions.create(model="smollm2", prompt=prompt, max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens >= 256
    assert not math.isnan(again.usage.prompt_tokens)
