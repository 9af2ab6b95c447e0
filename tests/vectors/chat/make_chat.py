"""Records what transformers makes of chats: chats.json, for tests/unit/test_chat.c and tests/http/test_openai_chat.py.

    python make_chat.py STEERD_DATA

The templates below are written for this test: the shortest programs with the marks of each format. Published templates are
not kept here; `--published FILE` (a JSON object of names and templates) prints what each renders to, to be held against
POST /v1/apply-chat-template by hand."""
import json
import pathlib
import sys

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

BOS, EOS = "<s>", "</s>"

OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}" + OPEN)
SPEAKING = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe brief<|im_end|>\n' }}{% endif %}" + CHATML
TURNS = "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
INST = ("{{ bos_token }}{% for message in messages %}" + TURNS +
        "{% if message.role == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% else %}{{ message['content'] + eos_token BLANK}}{% endif %}{% endfor %}")
NEMO = ("{%- if messages[0]['role'] == 'system' %}\n  {%- set system_message = messages[0]['content'] %}\n  {%- set loop_messages = messages[1:] %}\n"
        "{%- else %}\n  {%- set loop_messages = messages %}\n{%- endif %}\n{{- bos_token }}\n{%- for message in loop_messages %}\n" +
        TURNS.replace("{%", "{%-").replace("{{", "{{-") +
        '{%- if message["role"] == "user" %}\n    {%- if loop.last and system_message is defined %}\n'
        '        {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}\n    {%- else %}\n'
        '        {{- "[INST]" + message["content"] + "[/INST]" }}\n    {%- endif %}\n  {%- else %}\n    {{- message["content"] + eos_token }}\n'
        '  {%- endif %}\n{%- endfor %}\n')
MISTRAL_3 = NEMO.replace('"[INST]"', '"[INST] "').replace('message["content"] + eos_token', '" " + message["content"]|trim + eos_token')
PHI = ("{% for message in messages %}{% if message.role == 'system'EMPTY %}{{ '<|system|>\n' + message.content + '<|end|>\n' }}"
       "{% elif message.role == 'user' %}{{ '<|user|>\n' + message.content + '<|end|>\n' }}"
       "{% elif message.role == 'assistant' %}{{ '<|assistant|>\n' + message.content + '<|end|>\n' }}{% endif %}{% endfor %}"
       "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}")
QWEN_3 = ("{% set ns = namespace(last_query_index=-1) %}{% for message in messages %}{% if message.role == 'user' %}"
          "{% if '<tool_response>' not in message.content %}{% set ns.last_query_index = loop.index0 %}{% endif %}{% endif %}{% endfor %}"
          "{% for message in messages %}{% set content = message.content %}"
          "{% if message.role == 'assistant' and '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
          "{% if message.role == 'assistant' and loop.index0 > ns.last_query_index and ns.last_query_index >= 0 %}"
          "{{ '<|im_start|>assistant\n<think>' + content }}{% else %}"
          "{{ '<|im_start|>' + message.role + '\n' + content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
          "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}")
R1 = ("{% set ns = namespace(system_prompt='') %}{% for message in messages %}{% if message['role'] == 'system' %}"
      "{% set ns.system_prompt = message['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system_prompt }}"
      "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + message['content'] }}{% endif %}"
      "{% if message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}"
      "{% set content = content.split('</think>')[-1] %}{% endif %}"
      "{{ '<\uff5cAssistant\uff5c>' + content + '<\uff5cend\u2581of\u2581sentence\uff5c>' }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\\n' }}{% endif %}")
TULU = ("{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}"
        "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}"
        "{% elif not loop.last %}{% if not loop.last %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% endif %}{% endif %}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}")
LLAMA_3 = ("{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
           "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
           "{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}")
LLAMA_31 = ("{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
            "{% if messages[0].role == 'system' %}{% set system_message = messages[0].content | trim %}{% set messages = messages[1:] %}"
            "{% else %}{% set system_message = '' %}{% endif %}{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}"
            "{{ 'Cutting Knowledge Date: December 2023\n' }}{{ 'Today Date: ' + date_string + '\n\n' }}{{ system_message }}{{ '<|eot_id|>' }}"
            "{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + "
            "'<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}")
LLAMA_2 = ("{% if messages[0].role == 'system' %}{% set system_message = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
           "{% for message in messages %}" + TURNS + "{% if loop.first and system_message is defined %}"
           "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message.content %}{% else %}"
           "{% set content = message.content %}{% endif %}{% if message.role == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
           "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
ROLE = "{% set role = 'model' if message.role == 'assistant' else message.role %}"
GEMMA = ("{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
         "{% for message in messages %}" + TURNS + ROLE + "{{ '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}"
         "{% endfor %}{{ '<start_of_turn>model\n' }}")
GEMMA_3 = ("{{ bos_token }}\n{%- if messages[0].role == 'system' -%}\n  {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n"
           "  {%- set messages = messages[1:] -%}\n{%- else -%}\n  {%- set first_user_prefix = \"\" -%}\n{%- endif -%}\n"
           "{%- for message in messages -%}\n  " + TURNS + ROLE +
           "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else \"\") }}\n  {%- if message.content is string -%}\n"
           "    {{ message['content'] | trim }}\n  {%- endif -%}\n  {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n{{ '<start_of_turn>model\n' }}")
ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
          "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% else %}\n"
          "{{ '<|assistant|>\n' + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
          "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")

TEMPLATES = {
    "chatml": ("chatml", CHATML),
    "chatml, lines spelled out": ("chatml", CHATML.replace("\n", "\\n")),
    "chatml, spaced and quoted otherwise": ("chatml", CHATML.replace("message.role", '( message["role"] )').replace("( message[\"role\"] )", 'message["role"]')
                                            .replace("{{ ", "{{-  ").replace(" }}", "\t}}").replace(" + ", "+").replace("'", '"').replace('["role"]', "['role']")
                                            .replace("{% endfor %}", "{# a <|im_end|> that trims #}  \n  {%- endfor -%}\n\n")),
    "chatml with BOS": ("chatml", "{{ bos_token }}" + CHATML),
    "chatml with BOS, not in front of an answer":
        ("chatml", "{% if messages[0]['role'] == 'user' or messages[0]['role'] == 'system' %}{{ bos_token }}{% endif %}" + CHATML),
    "chatml whose turns end late": ("chatml", "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
                                    "{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\n' }}{% endif %}{% endfor %}" + OPEN),
    "chatml that speaks": ("chatml", SPEAKING),
    "chatml that speaks, lines spelled out": ("chatml", SPEAKING.replace("\n", "\\n")),
    "chatml that speaks with a backslash and quotes": ("chatml", SPEAKING.replace("Be brief", "It\\'s \"\\\\boxed{}\"")),
    "qwen-3": ("qwen-3", QWEN_3),
    "phi-4": ("phi-4", "".join("{% for message in messages %}" if role is None else
                               f"{{% if message.role == '{role}' %}}{{{{ '<|im_start|>{role}<|im_sep|>' + message.content + '<|im_end|>' }}}}{{% endif %}}"
                               for role in (None, "system", "user", "assistant")) + "{% endfor %}{{ '<|im_start|>assistant<|im_sep|>' }}"),
    "phi-4-mini": ("phi-4-mini", "{% for message in messages %}{% if message.content is string %}{{ '<|' + message['role'] + '|>' + message['content'] + "
                   "'<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"),
    "llama-3": ("llama-3", LLAMA_3),
    "llama-3.1": ("llama-3.1", LLAMA_31),
    "llama-2": ("llama-2", LLAMA_2),
    "mistral": ("mistral", INST.replace(" BLANK", "")),
    "mistral, the first": ("mistral-1", INST.replace("BLANK", "+ ' ' ")),
    "mistral 0.3": ("mistral-3", MISTRAL_3),
    "mistral nemo": ("mistral-nemo", NEMO),
    "gemma": ("gemma", GEMMA),
    "gemma-3": ("gemma-3", GEMMA_3),
    "phi-3": ("phi-3", PHI.replace("EMPTY", "")),
    "phi-3.5": ("phi-3", PHI.replace("EMPTY", " and message.content")),
    "phi-3 in one": ("phi-3", "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
                     "{{ '<|assistant|>\n' }}"),
    "zephyr": ("zephyr", ZEPHYR),
    "tulu": ("tulu", TULU),
    "tulu with BOS": ("tulu", "{{ bos_token }}" + TULU),
    "deepseek-r1": ("deepseek-r1", R1),
    "deepseek-r1, the first": ("deepseek-r1-first", R1.replace("<think>\\n", "")),
    # what must not be taken for a known one
    "chatml that speaks in another way": (None, SPEAKING.replace("Be brief", "You are ' + 'brief' + '").replace("'Be", "'" + "Be")
                                          .replace("{{ '<|im_start|>system\nYou are ' + 'brief' + '<|im_end|>\n' }}",
                                                   "{{ '<|im_start|>system\n' }}{{ 'You are brief' }}{{ '<|im_end|>\n' }}")),
    "chatml that speaks twice": (None, SPEAKING + "{{ '<|im_start|>system\nBe long<|im_end|>\n' }}"),
    "chatml that half speaks": (None, SPEAKING.replace("Be brief", "Be {{ mood }}").replace("Be {{ mood }}<|", "Be ' + mood + '<|")),
    "chatml that trims": (None, CHATML.replace("message.content", "(message.content | trim)")),
    "chatml that refuses": (None, CHATML.replace("{% endfor", TURNS + "{% endfor")),
    "chatml with BOS at times": (None, "{% if add_bos %}{{ bos_token }}{% endif %}" + CHATML),
    "chatml with BOS twice": (None, "{{ bos_token }}{{ bos_token }}" + CHATML),
    "chatml that thinks aloud": (None, CHATML.replace("assistant\n", "assistant\n<think>\n")),
    "chatml that cuts thoughts": (None, CHATML.replace("{{ '<|im_start|>' + message", "{% if '</think>' in message.content %}{{ 'cut' }}{% endif %}{{ '<|im_start|>' + message", 1)),
    "chatml with a macro": (None, "{% macro f(x) %}{{ x }}{% endmacro %}" + CHATML),
    "qwen-3 that thinks unless told": (None, QWEN_3.replace("{% endif %}{% endif %}", "{% else %}{{ '<think>\n' }}{% endif %}{% endif %}")),
    "qwen-3 without the switch": (None, QWEN_3.split("{% if enable_thinking")[0] + "{% endif %}"),
    "llama-3 with a date": (None, LLAMA_3.replace("{{ content", "{{ '26 Dates' }}{{ content")),
    "llama-3.1 of another date": (None, LLAMA_31.replace("26 Jul 2024", "27 Jul 2024")),
    "llama-3 that keeps spaces": (None, LLAMA_3.replace(" | trim", "")),
    "nemo with the system in front": (None, NEMO.replace("loop.last", "loop.first")),
    "mistral 0.3 that keeps spaces": (None, MISTRAL_3.replace("|trim", "")),
    "tulu that thinks aloud": (None, TULU.replace("'<|assistant|>\n' }}", "'<|assistant|>\n<think>\n' }}")),
    "deepseek-r1 that cuts lines": (None, R1.replace("[-1]", "[-1].lstrip()")),
    "deepseek-r1 over lines": (None, R1.replace("}}{{", "}}\n{{")),
    "phi-3 that says more": (None, PHI.replace("EMPTY", "").replace("<|end|>", "<|end|><|x|>")),
    "one of its own": (None, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"),
    "zephyr in one line": (None, "{% for message in messages %}{{ '<|user|>\n' + message['content'] + eos_token }}{% endfor %}{{ '<|assistant|>' }}"),
    "zephyr without its lines": (None, ZEPHYR.replace("}}\n", "}}")),
    "an end that is missing": (None, CHATML[:-30] + "{{ 'x"),
    "an escape at the end": (None, CHATML + "{{ 'x\\"),
    "a comment that never ends": (None, "{#" + CHATML),
    "nothing": (None, ""),
}

CHATS = {
    "one": [("user", "Hello  ")],
    "system": [("system", " Be kind. "), ("user", "\nHello \u00e9\u2003")],
    "turns": [("user", "A"), ("assistant", " B \n"), ("user", " C\n")],
    "all": [("system", "S\n"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D"), ("user", "\tE")],
    "thoughts": [("user", "A"), ("assistant", "<think>\nhm</think>\nno\n</think>\n\nB"), ("user", "C")],
    "two users": [("user", "A"), ("user", "B")],
    "late system": [("user", "A"), ("assistant", "B"), ("system", "X"), ("user", "B")],
    "empty": [("user", "")],
    "empty system": [("system", ""), ("user", "A")],
    "the assistant begins": [("assistant", "A"), ("user", "B")],
    "a tool's reply": [("user", "A"), ("assistant", "B"), ("user", "<tool_response>1</tool_response>")],
    "the system ends": [("user", "A"), ("assistant", "B"), ("system", "C")],
}


def messages(chat):
    return [{"role": role, "content": text} for role, text in chat]


def render(template, chat, **more):
    """None where the template refuses."""
    try:
        return _compile_jinja_template(template).render(messages=messages(chat), add_generation_prompt=True, bos_token=BOS,
                                                        eos_token=EOS, tools=None, **more)
    except Exception as refusal:
        assert "TemplateError" in type(refusal).__mro__[0].__name__ + type(refusal).__mro__[1].__name__, refusal
        return None


def case(name, format_, template):
    """quiet: with thinking turned off, where that is another text."""
    chats = []
    for chat_name, chat in CHATS.items() if format_ else ():
        text, quiet = render(template, chat), render(template, chat, enable_thinking=False)
        chats.append({"name": chat_name, "messages": messages(chat), "text": text, **({"quiet": quiet} if quiet != text else {})})
    return {"name": name, "format": format_, "template": template, "chats": chats}


def tokens(folder):
    """Of Qwen3's tokenizer and published template: ids of whole chats."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), chat_template=config["chat_template"],
                                        eos_token=config["eos_token"])
    return [{"name": n, "messages": messages(c),
             "ids": list(tokenizer.apply_chat_template(messages(c), add_generation_prompt=True, tokenize=True, return_dict=False))}
            for n, c in CHATS.items()]


def main():
    if sys.argv[1] == "--published":
        for name, template in json.loads(pathlib.Path(sys.argv[2]).read_text()).items():
            for chat in CHATS.values():
                print(json.dumps([name, messages(chat), render(template, chat)]))
        return
    data = pathlib.Path(sys.argv[1])
    out = {"bos": BOS, "eos": EOS, "cases": [case(n, f, t) for n, (f, t) in TEMPLATES.items()],
           "qwen3": tokens(data / "tokenizers" / "qwen3")}
    pathlib.Path(__file__).with_name("chats.json").write_text(json.dumps(out, indent=1) + "\n")


main()
