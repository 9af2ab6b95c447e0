/* tokenizer_json.c: reads tokenizer.json. Owns the list of what steerd builds of that format; everything else
 * is refused by name, because ignoring a part would give almost right ids. The file is read twice from front to
 * back: first its outline, where vocabulary and merges are stepped over and counted, then these two. */
#include <string.h>

#include "core/base/checked.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/model/merges.h"

/* Pre-tokenizers and post-processors nest in Sequences, which real files do once. */
#define JSON_DEPTH 32

/* Bytes of a file without its vocabulary and merges: Gemma's thousands of added tokens take one million. */
#define OUTLINE_BYTES_MAX ((size_t)16 << 20)

/* The name of a part for messages: its "type", or what it is instead of an object. */
static const char *part_type(const struct json_node *part) {
  const char *type = json_text(json_get(part, "type"), NULL);
  return type ? type : json_kind_word(json_kind(part));
}

static bool is_absent(const struct json_node *node) {
  return json_kind(node) == JSON_KIND_NONE || json_kind(node) == JSON_KIND_NULL;
}

static bool is_type(const struct json_node *part, const char *type) {
  return strcmp(part_type(part), type) == 0;
}

/* ---- outline ------------------------------------------------------------------------------------ */

struct outline {
  struct json_node *root; /* the file with null in the place of the two below */
  struct vocabulary vocabulary;
  const char *text;                /* the file */
  size_t merges_begin, merges_end; /* of the array; both 0: there is none */
  size_t merge_count;              /* at most so many */
};

/* What the outline is made of: the file, of which everything up to `copied` is in `text`. */
struct outliner {
  struct json_reader reader;
  struct buffer text;
  size_t copied;
};

static void outline_copy(struct outliner *o) {
  buffer_append(&o->text, o->reader.text + o->copied, o->reader.at - o->copied);
  o->copied = o->reader.at;
}

/* The least a merge takes in the file: "a b" and a comma. */
#define MERGE_BYTES_MIN 6

/* Steps over the array of merges, which is read when all pieces are. */
static int scan_merges(struct json_reader *r, struct outline *outline, struct error *error) {
  outline->merges_begin = r->at;
  if (json_reader_leap(r, &outline->merge_count, error) != 0)
    return -1;
  outline->merges_end = r->at;
  size_t room = (outline->merges_end - outline->merges_begin) / MERGE_BYTES_MIN + 1;
  outline->merge_count = size_min(outline->merge_count, room);
  return 0;
}

static bool is_key(const char *key, size_t length, const char *name) {
  return length == strlen(name) && memcmp(key, name, length) == 0;
}

/* A member of "model": the two large ones are left out of the outline. A file that names one twice is refused
 * by the tree, which has both keys. */
static int outline_member(struct outliner *o, const char *key, size_t length, struct outline *outline,
                          struct error *error) {
  bool vocabulary = is_key(key, length, "vocab"), merges = is_key(key, length, "merges");
  enum json_kind kind = json_reader_peek(&o->reader);
  if (!(vocabulary && kind == JSON_KIND_OBJECT) && !(merges && kind == JSON_KIND_ARRAY))
    return json_reader_skip(&o->reader, JSON_DEPTH, error);
  outline_copy(o);
  int result = vocabulary ? vocabulary_scan(&o->reader, &outline->vocabulary, error)
                          : scan_merges(&o->reader, outline, error);
  buffer_text(&o->text, "null");
  o->copied = o->reader.at;
  return result;
}

static int outline_model(struct outliner *o, struct outline *outline, struct error *error) {
  const char *key;
  size_t length;
  int more;
  if (json_reader_peek(&o->reader) != JSON_KIND_OBJECT)
    return json_reader_skip(&o->reader, JSON_DEPTH, error);
  if (json_reader_open(&o->reader, '{', error) != 0)
    return -1;
  while ((more = json_reader_key(&o->reader, &key, &length, error)) > 0)
    if (outline_member(o, key, length, outline, error) != 0)
      return -1;
  return more;
}

static int outline_file(struct outliner *o, struct outline *outline, struct error *error) {
  const char *key;
  size_t length;
  int more = 0;
  if (json_reader_peek(&o->reader) != JSON_KIND_OBJECT) {
    if (json_reader_skip(&o->reader, JSON_DEPTH, error) != 0)
      return -1;
  } else {
    if (json_reader_open(&o->reader, '{', error) != 0)
      return -1;
    while ((more = json_reader_key(&o->reader, &key, &length, error)) > 0)
      if ((is_key(key, length, "model") ? outline_model(o, outline, error)
                                        : json_reader_skip(&o->reader, JSON_DEPTH, error)) != 0)
        return -1;
  }
  if (more < 0 || json_reader_end(&o->reader, error) != 0)
    return -1;
  outline_copy(o);
  return buffer_check(&o->text, error);
}

static int outline_read(const char *text, size_t length, struct outline *outline, struct error *error) {
  struct outliner o = {.copied = 0};
  size_t bad;
  memset(outline, 0, sizeof *outline);
  outline->text = text;
  if (!utf8_valid(text, length, &bad))
    return error_set(error, ERROR_FORMAT, "invalid JSON: not valid UTF-8 at byte %zu", bad);
  json_reader_init(&o.reader, text, length);
  buffer_init(&o.text, OUTLINE_BYTES_MAX);
  if (outline_file(&o, outline, error) == 0)
    outline->root = json_parse(o.text.data, o.text.length, JSON_DEPTH, error);
  json_reader_clear(&o.reader);
  buffer_clear(&o.text);
  return outline->root ? 0 : -1;
}

/* ---- model -------------------------------------------------------------------------------------- */

static bool is_empty_text(const struct json_node *node) {
  size_t length;
  return is_absent(node) || (json_text(node, &length) && length == 0);
}

static int check_model(const struct json_node *model, const struct outline *outline, struct error *error) {
  /* Files of the first years name no type; only BPE has merges. */
  bool untyped = json_kind(model) == JSON_KIND_OBJECT && !json_get(model, "type") && outline->merges_end;
  if (!untyped && !is_type(model, "BPE"))
    return error_set(error, ERROR_UNSUPPORTED, "the tokenizer model '%.32s' is not supported; supported: BPE",
                     part_type(model));
  if (json_number_or(json_get(model, "dropout"), 0) != 0)
    return error_set(error, ERROR_UNSUPPORTED, "BPE dropout is not supported: ids would be random");
  static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (int i = 0; i < 2; i++)
    if (!is_empty_text(json_get(model, affixes[i])))
      return error_set(error, ERROR_UNSUPPORTED, "the %s '%.32s' is not supported; supported: none",
                       affixes[i], json_text_or(json_get(model, affixes[i]), "?"));
  if (!outline->vocabulary.text)
    return error_set(error, ERROR_FORMAT, "the vocabulary is %s, not an object of pieces and ids",
                     json_kind_word(json_kind(json_get(model, "vocab"))));
  if (!outline->merges_end)
    return error_set(error, ERROR_FORMAT, "the merges are %s, not an array",
                     json_kind_word(json_kind(json_get(model, "merges"))));
  return 0;
}

/* ---- added tokens ------------------------------------------------------------------------------- */

static int read_added_token(struct tokenizer *t, const struct json_node *node, const struct decoder *decoder,
                            struct error *error) {
  size_t length;
  const char *text = json_text(json_get(node, "content"), &length);
  if (!text)
    return error_set(error, ERROR_FORMAT, "an added token has no content");
  struct added_token token = {.id = (int32_t)json_int_or(json_get(node, "id"), -1),
                              .special = json_bool_or(json_get(node, "special"), false),
                              .lstrip = json_bool_or(json_get(node, "lstrip"), false),
                              .rstrip = json_bool_or(json_get(node, "rstrip"), false),
                              .single_word = json_bool_or(json_get(node, "single_word"), false)};
  return vocabulary_add(t, text, length, token, json_bool_or(json_get(node, "normalized"), true), decoder, error);
}

static int read_added_tokens(struct tokenizer *t, const struct json_node *added, const struct decoder *decoder,
                             struct error *error) {
  for (size_t i = 0; i < json_count(added); i++)
    if (read_added_token(t, json_at(added, i), decoder, error) != 0)
      return -1;
  return 0;
}

/* ---- post_processor ----------------------------------------------------------------------------- */

/* A template for one text: nothing but the text, or one special token in front of it. */
static int read_template(struct tokenizer *t, const struct json_node *part, struct error *error) {
  const struct json_node *steps = json_get(part, "single"),
                         *special = json_get(json_at(steps, 0), "SpecialToken");
  size_t count = json_count(steps);
  if (count < 1 || count > 2 || !json_get(json_at(steps, count - 1), "Sequence") || (count == 2 && !special))
    return error_set(error, ERROR_UNSUPPORTED,
                     "this TemplateProcessing is not supported; supported: one token before the text");
  if (count == 1)
    return 0;
  const char *name = json_text_or(json_get(special, "id"), "");
  const struct json_node *ids = json_get(json_get(json_get(part, "special_tokens"), name), "ids");
  int64_t id = json_int_or(json_at(ids, 0), -1);
  if (json_count(ids) != 1 || id < 0 || id > INT32_MAX || !pieces_has(&t->pieces, (int32_t)id))
    return error_set(error, ERROR_FORMAT, "the TemplateProcessing names '%.64s', which is no token", name);
  if (*name == '\0')
    return error_set(error, ERROR_FORMAT, "the TemplateProcessing names an empty token");
  t->bos = (int32_t)id;
  t->prepends_bos = true;
  return tokenizer_mark_special(t, t->bos, name, strlen(name), error);
}

static int read_postprocessor(struct tokenizer *t, const struct json_node *part, int depth,
                              struct error *error) {
  if (is_absent(part) || is_type(part, "ByteLevel"))
    return 0; /* ByteLevel moves offsets only */
  if (is_type(part, "TemplateProcessing"))
    return read_template(t, part, error);
  if (!is_type(part, "Sequence") || depth > 1)
    return error_set(error, ERROR_UNSUPPORTED,
                     "the post_processor '%s' is not supported; supported: ByteLevel, "
                     "TemplateProcessing",
                     part_type(part));
  const struct json_node *parts = json_get(part, "processors");
  for (size_t i = 0; i < json_count(parts); i++)
    if (read_postprocessor(t, json_at(parts, i), depth + 1, error) != 0)
      return -1;
  return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static int32_t unknown_id(const struct tokenizer *t, const struct json_node *model, bool byte_level) {
  size_t length;
  const char *text = json_text(json_get(model, "unk_token"), &length);
  return text ? vocabulary_find(t, text, length, byte_level) : -1;
}

static int read_parts(struct tokenizer *t, const struct outline *outline, const struct decoder *decoder,
                      struct bpe_options *options, struct error *error) {
  const struct json_node *model = json_get(outline->root, "model");
  if (vocabulary_read(t, &outline->vocabulary, decoder, error) != 0)
    return -1;
  if (merges_read(t, outline->text, outline->merges_begin, outline->merges_end, options->byte_level, error) != 0)
    return -1;
  if (read_added_tokens(t, json_get(outline->root, "added_tokens"), decoder, error) != 0)
    return -1;
  if (read_postprocessor(t, json_get(outline->root, "post_processor"), 0, error) != 0)
    return -1;
  options->unknown = unknown_id(t, model, options->byte_level);
  options->byte_fallback = json_bool_or(json_get(model, "byte_fallback"), false);
  options->fuse_unknown = json_bool_or(json_get(model, "fuse_unk"), false);
  options->ignore_merges = json_bool_or(json_get(model, "ignore_merges"), false);
  t->decoder = *decoder;
  return 0;
}

static struct tokenizer *read_outline(const struct outline *outline, struct error *error) {
  const struct json_node *root = outline->root;
  struct bpe_options options = {0};
  struct normalizer *normalizer = NULL;
  struct tokenizer *t = NULL;
  struct decoder decoder;
  if (check_model(json_get(root, "model"), outline, error) != 0)
    return NULL;
  options.split = pretokenizer_parse(json_get(root, "pre_tokenizer"), error);
  if (!options.split)
    return NULL;
  options.byte_level = pretokenizer_is_byte_level(options.split);
  if (decoder_parse(json_get(root, "decoder"), options.byte_level, &decoder, error) != 0)
    goto fail;
  if (normalizer_parse(json_get(root, "normalizer"), &normalizer, error) != 0)
    goto fail;
  t = vocabulary_open(&outline->vocabulary, json_get(root, "added_tokens"), NULL, outline->merge_count, error);
  if (!t || read_parts(t, outline, &decoder, &options, error) != 0)
    goto fail;
  t->normalizer = normalizer;
  bpe_set_options(vocabulary_bpe(t), options);
  return t;
fail:
  pretokenizer_free(options.split);
  normalizer_free(normalizer);
  tokenizer_free(t);
  return NULL;
}

struct tokenizer *tokenizer_parse_json(const char *text, size_t length, struct error *error) {
  struct outline outline;
  if (outline_read(text, length, &outline, error) != 0)
    return NULL;
  struct tokenizer *t = read_outline(&outline, error);
  json_free(outline.root);
  return t;
}
