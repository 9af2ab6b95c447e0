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

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SPEAKING = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe brief<|im_end|>\n' }}{% endif %}" + CHATML
TURNS = "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
INST = ("{{ bos_token }}{% for message in messages %}" + TURNS.replace("m.role", "message.role") +
        "{% if message.role == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% else %}{{ message['content'] + eos_token BLANK}}{% endif %}{% endfor %}")
PHI = ("{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\n' + m.content + '<|end|>\n' }}"
       "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endif %}{% endfor %}{{ '<|assistant|>\n' }}")

TEMPLATES = {
    "chatml": ("chatml", CHATML),
    "chatml, lines spelled out": ("chatml", CHATML.replace("\n", "\\n")),
    "chatml with BOS": ("chatml", "{{ bos_token }}" + CHATML),
    "chatml that speaks": ("chatml", SPEAKING),
    "chatml that speaks, lines spelled out": ("chatml", SPEAKING.replace("\n", "\\n")),
    "qwen-3": ("qwen-3", "{% set last_query_index = 0 %}{% for m in messages %}{% set text = m.content %}"
               "{% if m.role == 'assistant' and '</think>' in text %}{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
               "{{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
               "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"),
    "phi-4": ("phi-4", "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
              "{{ '<|im_start|>assistant<|im_sep|>' }}"),
    "llama-3": ("llama-3", "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
                "(m.content | trim) + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"),
    "llama-3.1": ("llama-3.1", "{{ bos_token }}{% set said = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}"
                  "{% set said = messages[0].content | trim %}{% set rest = messages[1:] %}{% endif %}"
                  "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' + said"
                  " + '<|eot_id|>' }}{% for m in rest %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
                  "(m.content | trim) + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"),
    "llama-2": ("llama-2", "{% set rest = messages %}{% set said = '' %}{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
                "{% set said = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% endif %}{% for m in rest %}" + TURNS +
                "{% set content = (said if loop.first else '') + m.content %}{% if m.role == 'user' %}"
                "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
                "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"),
    "mistral": ("mistral", INST.replace(" BLANK", "")),
    "mistral, the first": ("mistral-1", INST.replace("BLANK", "+ ' ' ")),
    "gemma": ("gemma", "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
              "{% for m in messages %}" + TURNS + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + "
              "(m.content | trim) + '<end_of_turn>\n' }}{% endfor %}{{ '<start_of_turn>model\n' }}"),
    "gemma-3": ("gemma-3", "{{ bos_token }}{% set first_user_prefix = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}"
                "{% set first_user_prefix = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}{% endif %}{% for m in rest %}" +
                TURNS + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + "
                "(first_user_prefix if loop.first else '') + (m.content | trim) + '<end_of_turn>\n' }}{% endfor %}{{ '<start_of_turn>model\n' }}"),
    "phi-3": ("phi-3", PHI),
    "zephyr": ("zephyr", "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
               "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% else %}\n"
               "{{ '<|assistant|>\n' + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
               "{% endfor %}"),
    # what must not be taken for a known one
    "chatml that speaks in another way": (None, SPEAKING.replace("Be brief", "You are ' + 'brief' + '")),
    "chatml that trims": (None, CHATML.replace("m.content", "(m.content | trim)")),
    "one of its own": (None, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"),
    "zephyr in one line": (None, "{% for message in messages %}{{ '<|user|>\n' + message['content'] + eos_token }}{% endfor %}{{ '<|assistant|>' }}"),
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
}


def messages(chat):
    return [{"role": role, "content": text} for role, text in chat]


def render(template, chat):
    """None where the template refuses."""
    try:
        return _compile_jinja_template(template).render(messages=messages(chat), add_generation_prompt=True, bos_token=BOS,
                                                        eos_token=EOS, tools=None)
    except Exception as refusal:
        assert "TemplateError" in type(refusal).__mro__[0].__name__ + type(refusal).__mro__[1].__name__, refusal
        return None


def case(name, format_, template):
    return {"name": name, "format": format_, "template": template,
            "chats": [{"name": n, "messages": messages(c), "text": render(template, c)} for n, c in CHATS.items()] if format_ else []}


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
