/* tokenizer_json.c: reads tokenizer.json. Owns the list of what steerd builds of that format; everything else
 * is refused by name, because ignoring a part would give almost right ids. */
#include <string.h>

#include "core/base/json.h"
#include "core/model/tokenizer_vocabulary.h"

/* Pre-tokenizers and post-processors nest in Sequences, which real files do once. */
#define JSON_DEPTH 32

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

/* ---- model -------------------------------------------------------------------------------------- */

static bool is_empty_text(const struct json_node *node) {
  size_t length;
  return is_absent(node) || (json_text(node, &length) && length == 0);
}

static int check_model(const struct json_node *model, struct error *error) {
  /* Files of the first years name no type; only BPE has merges. */
  bool untyped =
      json_kind(model) == JSON_KIND_OBJECT && !json_get(model, "type") && json_get(model, "merges");
  if (!untyped && !is_type(model, "BPE"))
    return error_set(error, ERROR_UNSUPPORTED,
                     "the tokenizer model '%s' is not supported; supported: byte-level BPE",
                     part_type(model));
  if (json_bool_or(json_get(model, "byte_fallback"), false))
    return error_set(error, ERROR_UNSUPPORTED,
                     "byte_fallback is not supported; supported: byte-level BPE without it");
  if (json_number_or(json_get(model, "dropout"), 0) != 0)
    return error_set(error, ERROR_UNSUPPORTED, "BPE dropout is not supported: ids would be random");
  static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (int i = 0; i < 2; i++)
    if (!is_empty_text(json_get(model, affixes[i])))
      return error_set(error, ERROR_UNSUPPORTED, "the %s '%.32s' is not supported; supported: none",
                       affixes[i], json_text_or(json_get(model, affixes[i]), "?"));
  return 0;
}

static int read_merge(struct bpe *bpe, const struct json_node *merge, struct error *error) {
  size_t length, right_length;
  const char *text = json_text(merge, &length);
  if (text)
    return vocabulary_merge_text(bpe, text, length, error);
  text = json_text(json_at(merge, 0), &length);
  const char *right = json_text(json_at(merge, 1), &right_length);
  if (!text || !right || json_count(merge) != 2)
    return error_set(error, ERROR_FORMAT, "a merge is %s, not \"a b\" or [\"a\", \"b\"]",
                     json_kind_word(json_kind(merge)));
  return vocabulary_merge(bpe, text, length, right, right_length, error);
}

static int read_merges(struct bpe *bpe, const struct json_node *merges, struct error *error) {
  if (json_kind(merges) != JSON_KIND_ARRAY)
    return error_set(error, ERROR_FORMAT, "the merges are %s, not an array",
                     json_kind_word(json_kind(merges)));
  for (size_t i = 0; i < json_count(merges); i++)
    if (read_merge(bpe, json_at(merges, i), error) != 0)
      return -1;
  return 0;
}

/* ---- pre_tokenizer ------------------------------------------------------------------------------ */

static int set_pattern(struct bpe_options *options, const char *pattern, struct error *error) {
  if (options->split)
    return error_set(error, ERROR_UNSUPPORTED, "two pre-tokenizer patterns in a row are not supported");
  options->split = pretokenizer_open(pattern, error);
  return options->split ? 0 : -1;
}

static int read_byte_level(const struct json_node *part, struct bpe_options *options, struct error *error) {
  options->prefix_space = json_bool_or(json_get(part, "add_prefix_space"), true);
  return json_bool_or(json_get(part, "use_regex"), true) ? set_pattern(options, PRETOKENIZER_GPT2, error) : 0;
}

static int read_split(const struct json_node *part, struct bpe_options *options, struct error *error) {
  const char *pattern = json_text(json_get(json_get(part, "pattern"), "Regex"), NULL);
  const char *behavior = json_text_or(json_get(part, "behavior"), "nothing");
  if (!pattern)
    return error_set(error, ERROR_UNSUPPORTED, "a Split by something else than a Regex is not supported");
  if (strcmp(behavior, "Isolated") != 0 || json_bool_or(json_get(part, "invert"), false))
    return error_set(error, ERROR_UNSUPPORTED,
                     "a Split with behavior '%.32s' or invert is not supported; supported: Isolated",
                     behavior);
  return set_pattern(options, pattern, error);
}

static int refuse_pretokenizer(const struct json_node *part, struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED,
                   "the pre_tokenizer '%s' is not supported here; supported: ByteLevel, or a Sequence that "
                   "ends with it",
                   part_type(part));
}

/* At most one Split and then ByteLevel. */
static int read_sequence(const struct json_node *parts, struct bpe_options *options, struct error *error) {
  size_t last = json_count(parts) - 1;
  for (size_t i = 0; i < last; i++) {
    const struct json_node *part = json_at(parts, i);
    if (!is_type(part, "Split"))
      return refuse_pretokenizer(part, error);
    if (read_split(part, options, error) != 0)
      return -1;
  }
  if (!is_type(json_at(parts, last), "ByteLevel"))
    return refuse_pretokenizer(json_at(parts, last), error);
  if (read_byte_level(json_at(parts, last), options, error) != 0)
    return -1;
  if (last > 0 && options->prefix_space) /* it would go in front of every stretch of the Split */
    return error_set(error, ERROR_UNSUPPORTED, "add_prefix_space behind a Split is not supported");
  return 0;
}

static int read_pretokenizer(const struct json_node *part, struct bpe_options *options, struct error *error) {
  const struct json_node *parts = json_get(part, "pretokenizers");
  if (is_type(part, "ByteLevel"))
    return read_byte_level(part, options, error);
  if (is_type(part, "Sequence") && json_count(parts) > 0)
    return read_sequence(parts, options, error);
  return refuse_pretokenizer(part, error);
}

/* ---- added tokens ------------------------------------------------------------------------------- */

static int read_added_token(struct tokenizer *t, const struct json_node *vocab, const struct json_node *node,
                            struct error *error) {
  size_t length;
  const char *text = json_text(json_get(node, "content"), &length);
  if (!text)
    return error_set(error, ERROR_FORMAT, "an added token has no content");
  if (json_bool_or(json_get(node, "single_word"), false))
    return error_set(error, ERROR_UNSUPPORTED,
                     "the added token '%.64s' is a single_word one, which is not supported", text);
  struct added_token token = {.id = (int32_t)json_int_or(json_get(node, "id"), -1),
                              .special = json_bool_or(json_get(node, "special"), false),
                              .lstrip = json_bool_or(json_get(node, "lstrip"), false),
                              .rstrip = json_bool_or(json_get(node, "rstrip"), false)};
  return vocabulary_add(t, vocab, text, length, token, json_bool_or(json_get(node, "normalized"), true),
                        error);
}

static int read_added_tokens(struct tokenizer *t, const struct json_node *vocab,
                             const struct json_node *added, struct error *error) {
  for (size_t i = 0; i < json_count(added); i++)
    if (read_added_token(t, vocab, json_at(added, i), error) != 0)
      return -1;
  return 0;
}

/* ---- post_processor and decoder ----------------------------------------------------------------- */

/* A template for one text: nothing but the text, or one special token in front of it. */
static int read_template(struct tokenizer *t, const struct json_node *part, struct error *error) {
  const struct json_node *steps = json_get(part, "single"),
                         *special = json_get(json_at(steps, 0), "SpecialToken");
  size_t count = json_count(steps), length;
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
  pieces_get(&t->pieces, (int32_t)id, &length);
  if (length == 0)
    return error_set(error, ERROR_FORMAT, "the TemplateProcessing names an empty token");
  t->bos = (int32_t)id;
  t->prepends_bos = true;
  return tokenizer_mark_special(t, t->bos, error);
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

static int check_absent_parts(const struct json_node *root, struct error *error) {
  const struct json_node *normalizer = json_get(root, "normalizer"), *decoder = json_get(root, "decoder");
  if (!is_absent(normalizer))
    return error_set(error, ERROR_UNSUPPORTED, "the normalizer '%s' is not supported; supported: none",
                     part_type(normalizer));
  if (!is_absent(decoder) && !is_type(decoder, "ByteLevel"))
    return error_set(error, ERROR_UNSUPPORTED, "the decoder '%s' is not supported; supported: ByteLevel",
                     part_type(decoder));
  return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static int read_parts(struct tokenizer *t, const struct json_node *root, struct bpe_options *options,
                      struct error *error) {
  const struct json_node *model = json_get(root, "model"), *vocab = json_get(model, "vocab");
  struct bpe *bpe = vocabulary_bpe(t);
  if (vocabulary_read(t, vocab, error) != 0 || read_merges(bpe, json_get(model, "merges"), error) != 0)
    return -1;
  int missing = bpe_missing_byte(bpe);
  if (missing >= 0 && !is_absent(json_get(model, "unk_token")))
    return error_set(error, ERROR_UNSUPPORTED,
                     "an unk_token is not supported where a byte (0x%02x) has no piece", (unsigned)missing);
  if (read_added_tokens(t, vocab, json_get(root, "added_tokens"), error) != 0)
    return -1;
  if (read_postprocessor(t, json_get(root, "post_processor"), 0, error) != 0)
    return -1;
  options->ignore_merges = json_bool_or(json_get(model, "ignore_merges"), false);
  return 0;
}

static struct tokenizer *read_root(const struct json_node *root, struct error *error) {
  const struct json_node *model = json_get(root, "model");
  struct bpe_options options = {0};
  struct tokenizer *t = NULL;
  if (check_model(model, error) != 0 || check_absent_parts(root, error) != 0)
    return NULL;
  if (read_pretokenizer(json_get(root, "pre_tokenizer"), &options, error) != 0)
    goto fail;
  t = vocabulary_open(json_get(model, "vocab"), json_get(root, "added_tokens"),
                      json_count(json_get(model, "merges")), error);
  if (!t || read_parts(t, root, &options, error) != 0)
    goto fail;
  bpe_set_options(vocabulary_bpe(t), options);
  return t;
fail:
  pretokenizer_free(options.split);
  tokenizer_free(t);
  return NULL;
}

struct tokenizer *tokenizer_parse_json(const char *text, size_t length, struct error *error) {
  struct json_node *root = json_parse(text, length, JSON_DEPTH, error);
  if (!root)
    return NULL;
  struct tokenizer *t = read_root(root, error);
  json_free(root);
  return t;
}
