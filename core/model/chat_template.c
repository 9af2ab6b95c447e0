/* chat_template.c: the table of chat formats, and how a template is recognised as one of them. Facts of the formats are data; a
 * new one is a row. A template is brought into a plain form first, the same for all ways to write the same program, so that a
 * mark can be a whole expression and not a word that some other template has too. What a template does beyond plain turns (tools,
 * pictures) is not served. */
#include <stdlib.h>
#include <string.h>

#include "core/model/chat_format.h"

#define BOS CHAT_BOS
#define EOS CHAT_EOS
#define IM(role) "<|im_start|>" role "\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define IM_TURNS \
  { {IM("system"), "<|im_end|>\n"}, {IM("user"), "<|im_end|>\n"}, {IM("assistant"), "<|im_end|>\n"} }
#define IM_TURN "'<|im_start|>'+message.role+'\n'+message.content+'<|im_end|>"
#define HEADER_TURN "'<|start_header_id|>'+message.role+'<|end_header_id|>\n\n'+message.content|trim+'<|eot_id|>'"
#define PHI_TURNS \
  { {"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"} }
#define GEMMA_TURNS(before, after) \
  { {before, after}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"} }
#define R1_TURNS \
  { {"", ""}, {"<｜User｜>", ""}, {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"} }
#define R1_MARKS "{{bos_token}}{{ns.system_prompt}}{%for message in messages%}", "{{'<｜User｜>'+message.content}}", \
                 "set content=content.split('</think>')[-1]%}{%endif%}{{'<｜Assistant｜>'+content+'<｜end▁of▁sentence｜>'}}"

/* The first row that fits counts. */
static const struct chat_format formats[] = {
    {"qwen-3",
     {"last_query_index", "{{'<|im_start|>'+message.role+'\n'+content}}", "content.split('</think>')[-1].lstrip('\n')",
      "{{'<|im_start|>assistant\n'}}{%if enable_thinking is defined and enable_thinking is false%}"
      "{{'<think>\n\n</think>\n\n'}}{%endif%}{%endif%}"},
     {"strftime", "raise_exception", "macro"},
     IM_TURNS, .answer = IM("assistant"), .quiet = "<think>\n\n</think>\n\n", .ends = "<|im_end|>",
     .thoughts = THOUGHTS_CUT_LINES},
    {"phi-4", {"'<|im_start|>user<|im_sep|>'+message.content+'<|im_end|>"}, {"trim", "strip(", "namespace"},
     {{"<|im_start|>system<|im_sep|>", "<|im_end|>"}, {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
      {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"}},
     .answer = "<|im_start|>assistant<|im_sep|>", .ends = "<|im_end|>", .alternates = true},
    {"chatml", {IM_TURN, "add_generation_prompt%}{{'<|im_start|>assistant\n'}}"},
     {"think>", "trim", "strip(", "macro", "raise_exception"}, IM_TURNS,
     .answer = IM("assistant"), .ends = "<|im_end|>", .speaks = true},
    {"chatml", {"'<|im_start|>'+message.role+'\n'+message.content}}{%if(loop.last and add_generation_prompt)or not loop.last%}"
                "{{'<|im_end|>\n'}}{%endif%}", "{{'<|im_start|>assistant\n'}}"},
     {"think>", "trim", "strip(", "macro", "raise_exception"}, IM_TURNS,
     .answer = IM("assistant"), .ends = "<|im_end|>", .speaks = true},
    {"llama-3.1",
     {HEADER_TURN, "{{'Cutting Knowledge Date: December 2023\n'}}", "{{'Today Date: '+date_string+'\n\n'}}",
      "date_string='26 Jul 2024'", "set system_message=messages[0].content|trim"}, {"strip(", "image"},
     {{HEADER("system") "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", "<|eot_id|>"},
      {HEADER("user"), "<|eot_id|>"}, {HEADER("assistant"), "<|eot_id|>"}},
     .answer = HEADER("assistant"), .ends = "<|eot_id|>", .place = SYSTEM_ALWAYS, .trim = TRIM_EACH},
    {"llama-3", {HEADER_TURN}, {"Date", "tools", "strip(", "raise_exception", "image"},
     {{HEADER("system"), "<|eot_id|>"}, {HEADER("user"), "<|eot_id|>"}, {HEADER("assistant"), "<|eot_id|>"}},
     .answer = HEADER("assistant"), .ends = "<|eot_id|>", .trim = TRIM_EACH},
    {"llama-2", {"'<<SYS>>\n'+system_message+'\n<</SYS>>\n\n'+message.content", "{{bos_token+'[INST] '+content.strip()+' [/INST]'}}",
                 "{{' '+content.strip()+' '+eos_token}}", "raise_exception("}, {"You are", "Vous"},
     {{"<<SYS>>\n", "\n<</SYS>>\n\n"}, {BOS "[INST] ", " [/INST]"}, {" ", " " EOS}},
     .answer = "", .place = SYSTEM_IN_USER, .trim = TRIM_MERGED, .alternates = true},
    {"mistral-nemo", {"{%if loop.last and system_message is defined%}{{'[INST]'+system_message+'\n\n'+message.content+'[/INST]'}}"
                      "{%else%}{{'[INST]'+message.content+'[/INST]'}}{%endif%}", "{{message.content+eos_token}}",
                      "set loop_messages=messages[1:]", "raise_exception("}, {"trim", "strip("},
     {{"", "\n\n"}, {"[INST]", "[/INST]"}, {"", EOS}}, .answer = "", .place = SYSTEM_IN_LAST, .alternates = true},
    {"mistral-3", {"{%if loop.last and system_message is defined%}{{'[INST] '+system_message+'\n\n'+message.content+'[/INST]'}}"
                   "{%else%}{{'[INST] '+message.content+'[/INST]'}}{%endif%}", "{{' '+message.content|trim+eos_token}}",
                   "set loop_messages=messages[1:]", "raise_exception("}, {"strip("},
     {{"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", EOS}},
     .answer = "", .place = SYSTEM_IN_LAST, .trim = TRIM_ANSWERS, .alternates = true},
    {"mistral-1", {"{{'[INST] '+message.content+' [/INST]'}}", "{{message.content+eos_token+' '}}", "raise_exception("}, {"SYS", "system"},
     {{NULL, NULL}, {"[INST] ", " [/INST]"}, {"", EOS " "}}, .answer = "", .place = SYSTEM_NONE, .alternates = true},
    {"mistral", {"{{'[INST] '+message.content+' [/INST]'}}", "{{message.content+eos_token}}", "raise_exception("}, {"SYS", "system"},
     {{NULL, NULL}, {"[INST] ", " [/INST]"}, {"", EOS}}, .answer = "", .place = SYSTEM_NONE, .alternates = true},
    {"gemma-3", {"set first_user_prefix=messages[0].content+'\n\n'%}", "{{'<start_of_turn>'+role+'\n'+(first_user_prefix if loop.first else '')}}",
                 "{{message.content|trim}}", "{{'<end_of_turn>\n'}}", "raise_exception("}, {"strip("},
     GEMMA_TURNS("", "\n\n"), .answer = "<start_of_turn>model\n", .ends = "<end_of_turn>", .place = SYSTEM_IN_USER,
     .trim = TRIM_EACH, .alternates = true},
    {"gemma", {"{{'<start_of_turn>'+role+'\n'+message.content|trim+'<end_of_turn>\n'}}", "raise_exception('System role not supported')"},
     {"strip("}, GEMMA_TURNS(NULL, NULL), .answer = "<start_of_turn>model\n", .ends = "<end_of_turn>", .place = SYSTEM_NONE,
     .trim = TRIM_EACH, .alternates = true},
    {"phi-3", {"message.role=='system' and message.content%}{{'<|system|>\n'+message.content+'<|end|>\n'}}",
               "{{'<|user|>\n'+message.content+'<|end|>\n'}}", "{{'<|assistant|>\n'+message.content+'<|end|>\n'}}"},
     {"trim", "strip(", "tools"}, PHI_TURNS, .answer = "<|assistant|>\n", .ends = "<|end|>", .silent = true},
    {"phi-3", {"message.role=='system'%}{{'<|system|>\n'+message.content+'<|end|>\n'}}",
               "{{'<|user|>\n'+message.content+'<|end|>\n'}}", "{{'<|assistant|>\n'+message.content+'<|end|>\n'}}"},
     {"trim", "strip(", "tools"}, PHI_TURNS, .answer = "<|assistant|>\n", .ends = "<|end|>"},
    {"phi-3", {"{{'<|'+message.role+'|>\n'+message.content+'<|end|>\n'}}", "{{'<|assistant|>\n'}}"}, {"trim", "tools"},
     PHI_TURNS, .answer = "<|assistant|>\n", .ends = "<|end|>"},
    {"phi-3-first", {"{{'<|user|>\n'+message.content+'<|end|>\n<|assistant|>\n'}}", "{{message.content+'<|end|>\n'}}"}, {"system", "tools"},
     {{NULL, NULL}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}},
     .answer = "<|assistant|>\n", .ends = "<|end|>", .place = SYSTEM_NONE, .alternates = true},
    {"phi-4-mini", {"{{'<|'+message.role+'|>'+message.content+'<|end|>'}}{%endif%}{%endfor%}{%if add_generation_prompt%}{{'<|assistant|>'}}"},
     {"trim", "strip("}, {{"<|system|>", "<|end|>"}, {"<|user|>", "<|end|>"}, {"<|assistant|>", "<|end|>"}},
     .answer = "<|assistant|>", .ends = "<|end|>"},
    {"zephyr", {"{{'<|user|>\n'+message.content+eos_token}}\n", "{{'<|system|>\n'+message.content+eos_token}}\n",
                "{{'<|assistant|>\n'+message.content+eos_token}}\n", "{%if loop.last and add_generation_prompt%}{{'<|assistant|>'}}\n"},
     {"trim"}, {{"<|system|>\n", EOS "\n"}, {"<|user|>\n", EOS "\n"}, {"<|assistant|>\n", EOS "\n"}}, .answer = "<|assistant|>\n"},
    {"tulu", {"{{'<|system|>\n'+message.content+'\n'}}", "{{'<|user|>\n'+message.content+'\n'}}",
              "{%if not loop.last%}{{'<|assistant|>\n'+message.content+eos_token+'\n'}}",
              "{%if loop.last and add_generation_prompt%}{{'<|assistant|>\n'}}{%endif%}"}, {"trim", "strip("},
     {{"<|system|>\n", "\n"}, {"<|user|>\n", "\n"}, {"<|assistant|>\n", EOS "\n"}}, .answer = "<|assistant|>\n"},
    {"deepseek-r1", {R1_MARKS, "{{'<｜Assistant｜><think>\n'}}{%endif%}"}, {"lstrip", "trim"}, R1_TURNS,
     .answer = "<｜Assistant｜><think>\n", .place = SYSTEM_FIRST, .thoughts = THOUGHTS_CUT, .muses = true},
    {"deepseek-r1-first", {R1_MARKS, "{{'<｜Assistant｜>'}}{%endif%}"}, {"lstrip", "trim"}, R1_TURNS,
     .answer = "<｜Assistant｜>", .place = SYSTEM_FIRST, .thoughts = THOUGHTS_CUT, .muses = true},
};

/* ---- the plain form ----------------------------------------------------------------------------------- */

/* A template with nothing in it that does not matter: white space is cut as transformers sets Jinja to (blocks take their line's
 * indentation and end with them, dashes all of it), comments go, expressions lose their spaces, m["role"] is m.role, strings have
 * one kind of quotes, no escapes, and neighbours with + between them are one. */
struct plain {
  const char *at;
  char *out, *end; /* end: behind what is written */
  char before;     /* the last tag: '}' an expression, '%' a block or comment, '-' one that cuts; 0: none yet */
  bool torn;       /* a tag does not end */
};

#define APOSTROPHE '\3' /* within a string */

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Text between tags. `next`: the second byte of the tag behind it, or 0 at the end. */
static void plain_text(struct plain *p, const char *from, const char *to, char next, bool cuts) {
  if (p->before == '-') while (from < to && is_space(*from)) from++;
  else if (p->before == '%' && from < to && *from == '\n') from++;
  if (cuts) while (to > from && is_space(to[-1])) to--;
  else if (next == '%' || next == '#') {
    const char *indent = to;
    while (indent > from && (indent[-1] == ' ' || indent[-1] == '\t')) indent--;
    if (indent > from ? indent[-1] == '\n' : p->before != '}' && p->before != '-') to = indent;
  }
  if (!next && to > from && to[-1] == '\n') to--;
  while (from < to) *p->end++ = *from++;
}

/* A string of an expression, from behind its quote. */
static void plain_string(struct plain *p, char quote) {
  if (p->end - p->out >= 2 && p->end[-1] == '+' && p->end[-2] == '\'') p->end -= 2;
  else {
    if (is_word(p->end[-1])) *p->end++ = ' ';
    *p->end++ = '\'';
  }
  for (; *p->at && *p->at != quote; p->at++) {
    char c = *p->at;
    if (c == '\\' && p->at[1]) {
      c = *++p->at;
      c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
    }
    *p->end++ = c == '\'' ? APOSTROPHE : c;
  }
  *p->end++ = '\'';
  p->at += *p->at == quote;
}

/* ...['name'] as ...name. Only words are names. */
static bool plain_member(struct plain *p) {
  char *from = p->end - 1;
  if (p->end - p->out < 4 || *from != '\'') return false;
  while (from > p->out && is_word(from[-1])) from--;
  if (from - p->out < 3 || from[-1] != '\'' || from[-2] != '[' || from == p->end - 1 || (!is_word(from[-3]) && from[-3] != ']'))
    return false;
  size_t length = (size_t)(p->end - 1 - from);
  from[-2] = '.';
  memmove(from - 1, from, length);
  p->end = from - 1 + length;
  return true;
}

/* From behind the opening of a tag to behind its end. */
static void plain_tag(struct plain *p, char kind) {
  char close = kind == '{' ? '}' : kind;
  bool space = false;
  *p->end++ = '{';
  *p->end++ = kind;
  while (*p->at && !(p->at[0] == close && p->at[1] == '}')) {
    char c = *p->at++;
    if (c == '-' && p->at[0] == close && p->at[1] == '}') {
      close = 0;
      break;
    }
    if (is_space(c)) space = true;
    else if (c == '\'' || c == '"') plain_string(p, c), space = false;
    else if (c != ']' || !plain_member(p)) {
      if (is_word(c) && (p->end[-1] == '\'' || (space && is_word(p->end[-1])))) *p->end++ = ' ';
      *p->end++ = c;
      space = false;
    }
  }
  *p->end++ = kind == '{' ? '}' : kind;
  *p->end++ = '}';
  p->before = close == 0 ? '-' : kind == '{' ? '}' : '%';
  p->torn |= !*p->at;
  p->at += *p->at ? 2 : 0;
}

static void plain_comment(struct plain *p) {
  const char *end = strstr(p->at, "#}");
  p->before = end && end > p->at && end[-1] == '-' ? '-' : '%';
  p->torn |= !end;
  p->at = end ? end + 2 : p->at + strlen(p->at);
}

/* Not twice as long as the text: what is added are spaces around strings, and an end that is missing. */
static char *plain_form(const char *text, struct error *error) {
  size_t length = strlen(text);
  struct plain p = {.at = text, .out = malloc(2 * length + 16)};
  if (!p.out) return error_memory(error, 2 * length), NULL;
  p.end = p.out;
  while (*p.at) {
    const char *from = p.at, *tag = from;
    while (*tag && !(tag[0] == '{' && (tag[1] == '{' || tag[1] == '%' || tag[1] == '#'))) tag++;
    bool cuts = *tag && tag[2] == '-';
    plain_text(&p, from, tag, *tag ? tag[1] : 0, cuts);
    p.at = *tag ? tag + 2 + cuts : tag;
    if (*tag && tag[1] == '#') plain_comment(&p);
    else if (*tag) plain_tag(&p, tag[1]);
  }
  if (p.torn) p.end = p.out; /* no program at all */
  *p.end = '\0';
  return p.out;
}

/* ---- recognising -------------------------------------------------------------------------------------- */

static bool fits(const struct chat_format *format, const char *text) {
  for (int i = 0; i < CHAT_MARKS; i++)
    if ((format->has[i] && !strstr(text, format->has[i])) || (format->lacks[i] && strstr(text, format->lacks[i]))) return false;
  return true;
}

/* When BOS comes in front. -1: in a way that is not known. */
static int bos_of(const char *text) {
  static const char tag[] = "{{bos_token}}", unless[] = "{%if messages[0].role=='user' or messages[0].role=='system'%}";
  const char *at = strstr(text, "bos_token");
  if (!at) return CHAT_BOS_NEVER;
  if (strstr(at + 1, "bos_token")) return -1;
  if (strstr(text, "{%if loop.index0==0%}{%set content=bos_token+content%}{%endif%}") || strstr(text, "{{bos_token+'[INST] '"))
    return CHAT_BOS_ALWAYS;
  const char *from = strstr(text, tag);
  if (!from) return -1;
  size_t before = (size_t)(from - text), length = sizeof unless - 1;
  if (before >= length && strncmp(from - length, unless, length) == 0) return CHAT_BOS_NO_ANSWER;
  return strncmp(from + sizeof tag - 1, "{%endif%}", 9) == 0 ? -1 : CHAT_BOS_ALWAYS;
}

static char *copy_literal(const char *from, size_t length, struct error *error) {
  char *out = malloc(length + 1);
  if (!out) return error_memory(error, length), NULL;
  for (size_t i = 0; i < length; i++) out[i] = from[i] == APOSTROPHE ? '\'' : from[i];
  out[length] = '\0';
  return out;
}

/* What a ChatML template says where no system message does: literal text up to the end of that turn, the same wherever it is
 * said. *ok: there is none, or it was found. */
static char *default_system(const char *text, bool *ok, struct error *error) {
  static const char begin[] = IM("system"), end[] = "<|im_end|>";
  const char *found = NULL;
  size_t found_length = 0;
  for (const char *at = strstr(text, begin); at && *ok; at = strstr(at, begin)) {
    at += sizeof begin - 1;
    size_t length = strcspn(at, "'<");
    if (at[0] == '\'') continue;
    *ok = strncmp(at + length, end, sizeof end - 1) == 0 &&
          (!found || (length == found_length && memcmp(at, found, length) == 0));
    found = at;
    found_length = length;
  }
  if (!found) *ok = !strstr(text, "You are"); /* said in another way */
  return found && *ok ? copy_literal(found, found_length, error) : NULL;
}

int chat_template_read(struct chat_template *chat, const char *text, struct error *error) {
  struct error own = ERROR_INIT;
  char *plain = plain_form(text, error);
  if (!plain) return -1;
  int bos = bos_of(plain);
  *chat = (struct chat_template){.present = true, .bos = bos < 0 ? CHAT_BOS_NEVER : (enum chat_bos)bos};
  for (size_t i = 0; i < sizeof formats / sizeof *formats && bos >= 0 && !chat->format; i++)
    if (fits(&formats[i], plain)) chat->format = &formats[i];
  bool ok = true;
  if (chat->format && chat->format->speaks) chat->system = default_system(plain, &ok, &own);
  if (!ok) chat->format = NULL;
  free(plain);
  return own.code ? error_set(error, own.code, "%s", own.text) : 0;
}

void chat_template_clear(struct chat_template *chat) { free(chat->system); }

const char *chat_format_name(const struct chat_template *chat) { return chat && chat->format ? chat->format->name : NULL; }

/* Rows of one name stand together. */
static bool is_first(size_t i) { return i == 0 || strcmp(formats[i].name, formats[i - 1].name) != 0; }

size_t chat_known_formats(void) {
  size_t n = 0;
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) n += is_first(i);
  return n;
}

const char *chat_known_format(size_t i) {
  size_t at = 0;
  for (size_t n = 0; n <= i; at++) n += is_first(at);
  return formats[at - 1].name;
}
