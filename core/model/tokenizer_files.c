/* tokenizer_files.c: finds and reads the files of a Hugging Face folder: tokenizer.json, or vocab.json +
 * merges.txt, or tokenizer.model, and the settings beside them that name BOS and EOS. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/utf8.h"
#include "core/model/tokenizer_vocabulary.h"

#define VOCABULARY_BYTES_MAX ((size_t)64 << 20)
#define MODEL_BYTES_MAX ((size_t)16 << 20)
#define SETTINGS_BYTES_MAX ((size_t)4 << 20)
#define SETTINGS_DEPTH 64
#define MERGE_LINE_BYTES (2 * BPE_PIECE_BYTES + 1)
#define PATH_BYTES 4096

/* GPT-2's only control token, both BOS and EOS, where no setting says otherwise. */
#define END_OF_TEXT "<|endoftext|>"

static int file_path(char path[PATH_BYTES], const char *folder, const char *name, struct error *error) {
  if (snprintf(path, PATH_BYTES, "%s/%s", folder, name) >= PATH_BYTES)
    return error_set(error, ERROR_ARGUMENT, "the path of '%s' has more than %d bytes", name, PATH_BYTES - 1);
  return 0;
}

/* Clones without Git LFS have a few lines of text in the place of their large files. */
static int read_large(const char *path, size_t limit, char **data, size_t *length, struct error *error) {
  static const char pointer[] = "version https://git-lfs";
  if (file_read(path, limit, data, length, error) != 0)
    return -1;
  if (*length < sizeof pointer - 1 || memcmp(*data, pointer, sizeof pointer - 1) != 0)
    return 0;
  free(*data);
  *data = NULL;
  return error_set(error, ERROR_FORMAT, "'%s' is a Git LFS pointer; fetch its content first (git lfs pull)", path);
}

/* ---- vocab.json + merges.txt -------------------------------------------------------------------- */

static size_t line_length(const char *text, size_t length) {
  const char *end = memchr(text, '\n', length);
  return end ? (size_t)(end - text) : length;
}

static int read_merge_line(struct tokenizer *t, const char *line, size_t length, size_t number, uint32_t *rank,
                           struct error *error) {
  static const char version[] = "#version";
  if (length && line[length - 1] == '\r')
    length--;
  if (length == 0 ||
      (number == 1 && length >= sizeof version - 1 && memcmp(line, version, sizeof version - 1) == 0))
    return 0;
  struct error inner = ERROR_INIT;
  if (length > MERGE_LINE_BYTES)
    return error_set(error, ERROR_LIMIT, "line %zu has %zu bytes, at most %d are read", number, length,
                     MERGE_LINE_BYTES);
  if (vocabulary_merge_text(t, line, length, true, (*rank)++, &inner) == 0)
    return 0;
  return error_set(error, inner.code, "line %zu: %s", number, inner.text);
}

static int read_merge_lines(struct tokenizer *t, const char *text, size_t length, struct error *error) {
  size_t bad, number = 0;
  uint32_t rank = 0;
  if (!utf8_valid(text, length, &bad))
    return error_set(error, ERROR_FORMAT, "not valid UTF-8 at byte %zu", bad);
  for (size_t at = 0; at < length;) {
    size_t n = line_length(text + at, length - at);
    if (read_merge_line(t, text + at, n, ++number, &rank, error) != 0)
      return -1;
    at += n + 1;
  }
  return 0;
}

static size_t count_lines(const char *text, size_t length) {
  size_t count = 1;
  for (size_t i = 0; i < length; i++)
    count += text[i] == '\n';
  return count;
}

static int mark_end_of_text(struct tokenizer *t, struct error *error) {
  int32_t id = vocabulary_find(t, END_OF_TEXT, sizeof END_OF_TEXT - 1, true);
  return id < 0 ? 0 : tokenizer_mark_special(t, id, END_OF_TEXT, sizeof END_OF_TEXT - 1, error);
}

/* vocab.json as a whole is the object of pieces. */
static struct tokenizer *read_vocabulary(const char *text, size_t length, size_t merge_count, struct added_list *added,
                                         struct error *error) {
  static const struct decoder decoder = {.byte_level = true};
  struct vocabulary vocabulary;
  struct json_reader reader;
  struct tokenizer *t = NULL;
  size_t bad;
  if (!utf8_valid(text, length, &bad)) {
    error_set(error, ERROR_FORMAT, "invalid JSON: not valid UTF-8 at byte %zu", bad);
    return NULL;
  }
  json_reader_init(&reader, text, length);
  enum json_kind kind = json_reader_peek(&reader);
  if (kind != JSON_KIND_OBJECT && kind != JSON_KIND_NONE)
    error_set(error, ERROR_FORMAT, "the vocabulary is %s, not an object of pieces and ids", json_kind_word(kind));
  else if (vocabulary_scan(&reader, &vocabulary, error) == 0 && json_reader_end(&reader, error) == 0)
    t = vocabulary_open(&vocabulary, NULL, added, merge_count, error);
  json_reader_clear(&reader);
  if (t && vocabulary_read(t, &vocabulary, &decoder, error) == 0 && vocabulary_add_list(t, added, &decoder, error) == 0 &&
      mark_end_of_text(t, error) == 0)
    return t;
  tokenizer_free(t);
  return NULL;
}

struct tokenizer *tokenizer_parse_vocabulary(const char *vocab, size_t vocab_length, const char *merges,
                                             size_t merges_length, bool prefix_space, struct added_list *added,
                                             struct error *error) {
  struct bpe_options options = {.byte_level = true, .unknown = -1};
  struct tokenizer *t = read_vocabulary(vocab, vocab_length, count_lines(merges, merges_length), added, error);
  if (!t)
    return error_prefix(error, "vocab.json"), NULL;
  if (read_merge_lines(t, merges, merges_length, error) != 0) {
    error_prefix(error, "merges.txt");
    goto fail;
  }
  options.split = pretokenizer_gpt2(prefix_space, error);
  if (!options.split)
    goto fail;
  bpe_set_options(vocabulary_bpe(t), options);
  return t;
fail:
  tokenizer_free(t);
  return NULL;
}

/* ---- settings beside them ----------------------------------------------------------------------- */

struct settings {
  struct json_node *tokenizer, *special, *generation, *model; /* NULL: no such file */
  struct json_node *added; /* added_tokens.json, read where there is no tokenizer.json; else NULL */
  bool overrule;           /* names of tokens here count more than the vocabulary file's */
};

static int load_setting(const char *folder, const char *name, struct json_node **out, struct error *error) {
  char path[PATH_BYTES];
  if (file_path(path, folder, name, error) != 0)
    return -1;
  if (!path_is_file(path))
    return 0;
  *out = json_load(path, SETTINGS_BYTES_MAX, SETTINGS_DEPTH, error);
  return *out ? 0 : -1;
}

static int settings_load(struct settings *s, const char *folder, struct error *error) {
  if (load_setting(folder, "tokenizer_config.json", &s->tokenizer, error) != 0)
    return -1;
  if (load_setting(folder, "special_tokens_map.json", &s->special, error) != 0)
    return -1;
  if (load_setting(folder, "generation_config.json", &s->generation, error) != 0)
    return -1;
  return load_setting(folder, "config.json", &s->model, error);
}

static void settings_clear(struct settings *s) {
  json_free(s->tokenizer);
  json_free(s->special);
  json_free(s->generation);
  json_free(s->model);
  json_free(s->added);
}

/* "bos_token" is a text, or an object with the text as its content. */
static const char *token_text(const struct json_node *node) {
  const char *text = json_text(node, NULL);
  return text ? text : json_text(json_get(node, "content"), NULL);
}

/* Marks the token that a settings file names; *id stays when it names none, or an empty one. *settled: the matter is decided,
 * also by an explicit null. */
static int token_by_text(struct tokenizer *t, const struct json_node *file, const char *key, int32_t *id,
                         bool *settled, struct error *error) {
  const struct json_node *node = json_get(file, key);
  const char *text = token_text(node);
  if (!node || *settled || (text && !*text))
    return 0;
  *settled = true;
  if (json_kind(node) == JSON_KIND_NULL) {
    *id = -1;
    return 0;
  }
  int32_t found = text ? pieces_find(&t->pieces, text, strlen(text)) : -1;
  if (found < 0)
    return error_set(error, ERROR_FORMAT, "the %s '%.64s' of the settings is not in the vocabulary", key,
                     text ? text : "?");
  *id = found;
  return tokenizer_mark_special(t, found, text, strlen(text), error);
}

/* The model's own settings give ids, often ones of another vocabulary left behind: an id counts when it is a
 * token that ordinary text cannot become. */
static int token_by_id(struct tokenizer *t, const struct json_node *file, const char *key, int32_t *id,
                       struct error *error) {
  const struct json_node *node = json_get(file, key);
  if (json_kind(node) == JSON_KIND_ARRAY)
    node = json_at(node, 0);
  if (*id >= 0 || json_kind(node) != JSON_KIND_INT)
    return 0;
  int64_t value = json_int_or(node, -1);
  bool fits = value >= 0 && value <= INT32_MAX && pieces_has(&t->pieces, (int32_t)value);
  if (!fits || bpe_makes(vocabulary_bpe(t), (int32_t)value)) {
    log_warn("%s %lld is no control token of the vocabulary and is ignored", key, (long long)value);
    return 0;
  }
  *id = (int32_t)value;
  size_t length;
  const char *text = pieces_get(&t->pieces, *id, &length);
  return length == 0 ? 0 : tokenizer_mark_special(t, *id, text, length, error);
}

/* Who decides, in this order: tokenizer.json, the tokenizer's settings by text, a SentencePiece model, the model's settings by id,
 * GPT-2's habit. */
static int settle_token(struct tokenizer *t, const struct settings *s, const char *key, const char *id_key,
                        int32_t *id, struct error *error) {
  bool settled = *id >= 0 && !s->overrule;
  if (token_by_text(t, s->tokenizer, key, id, &settled, error) != 0)
    return -1;
  if (token_by_text(t, s->special, key, id, &settled, error) != 0)
    return -1;
  if (settled || *id >= 0)
    return 0;
  if (token_by_id(t, s->generation, id_key, id, error) != 0 ||
      token_by_id(t, s->model, id_key, id, error) != 0)
    return -1;
  int32_t usual = pieces_find(&t->pieces, END_OF_TEXT, sizeof END_OF_TEXT - 1);
  if (*id < 0 && tokenizer_is_special(t, usual))
    *id = usual;
  return 0;
}

/* What neither begins nor ends a text is known by its text alone; one that the vocabulary lacks can be in no text. */
static int32_t find_token(const struct tokenizer *t, const struct settings *s, const char *key) {
  const char *text = token_text(json_get(s->tokenizer, key));
  if (!text) text = token_text(json_get(s->special, key));
  return text && *text ? pieces_find(&t->pieces, text, strlen(text)) : -1;
}

/* Whether models of this type begin with BOS when nothing is said: TransformerLens' table. */
static bool habit(const struct json_node *config) {
  static const char *const without[] = {"gpt_neox", "qwen2", "qwen3", "phi", "bloom"};
  const char *type = json_text_or(json_get(config, "model_type"), "");
  for (size_t i = 0; i < sizeof without / sizeof without[0]; i++)
    if (strcmp(type, without[i]) == 0)
      return false;
  return true;
}

static int settings_apply(struct tokenizer *t, const struct settings *s, struct error *error) {
  if (settle_token(t, s, "bos_token", "bos_token_id", &t->bos, error) != 0)
    return -1;
  if (settle_token(t, s, "eos_token", "eos_token_id", &t->eos, error) != 0)
    return -1;
  t->pad = find_token(t, s, "pad_token");
  t->sep = find_token(t, s, "sep_token");
  t->prepends_bos = t->bos >= 0 && json_bool_or(json_get(s->tokenizer, "add_bos_token"), habit(s->model));
  return 0;
}

/* The text of the template: in the settings (one, or a list of named ones), or in a file of its own. */
static int chat_apply(struct tokenizer *t, const char *folder, const struct settings *s, struct error *error) {
  const struct json_node *node = json_get(s->tokenizer, "chat_template");
  char path[PATH_BYTES], *file = NULL;
  size_t length;
  for (size_t i = 0; json_kind(node) == JSON_KIND_ARRAY && i < json_count(node); i++)
    if (strcmp(json_text_or(json_get(json_at(node, i), "name"), ""), "default") == 0) {
      node = json_get(json_at(node, i), "template");
      break;
    }
  const char *text = json_text(node, NULL);
  if (!text) {
    if (file_path(path, folder, "chat_template.jinja", error) != 0) return -1;
    if (path_is_file(path) && file_read(path, SETTINGS_BYTES_MAX, &file, &length, error) != 0) return -1;
    text = file;
  }
  int result = text ? chat_template_read(&t->chat, text, error) : 0;
  free(file);
  return result;
}

/* ---- the folder --------------------------------------------------------------------------------- */

static struct tokenizer *open_json(const char *path, struct error *error) {
  char *text;
  size_t length;
  if (read_large(path, VOCABULARY_BYTES_MAX, &text, &length, error) != 0)
    return NULL;
  struct tokenizer *t = tokenizer_parse_json(text, length, error);
  free(text);
  if (!t)
    error_prefix(error, "'%s'", path);
  return t;
}

/* What the settings add to a vocabulary that lies in other files; older folders have a file of their own for it. */
static int read_added(const char *folder, struct settings *s, struct added_list *added, struct error *error) {
  *added = (struct added_list){0};
  if (load_setting(folder, "added_tokens.json", &s->added, error) != 0)
    return -1;
  return added_list_read(added, s->tokenizer, s->added, s->special, error);
}

/* The two files under the names of transformers, or those of the first release of GPT-2. */
static const char *const vocabulary_names[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};

static struct tokenizer *open_vocabulary(const char *folder, struct settings *s, int names, struct error *error) {
  char path[PATH_BYTES], *vocab = NULL, *merges = NULL;
  size_t vocab_length, merges_length;
  struct added_list added = {0};
  struct tokenizer *t = NULL;
  bool prefix_space = json_bool_or(json_get(s->tokenizer, "add_prefix_space"), false);
  if (read_added(folder, s, &added, error) != 0)
    goto out;
  if (file_path(path, folder, vocabulary_names[names][0], error) != 0)
    goto out;
  if (file_read(path, VOCABULARY_BYTES_MAX, &vocab, &vocab_length, error) != 0)
    goto out;
  if (file_path(path, folder, vocabulary_names[names][1], error) != 0)
    goto out;
  if (file_read(path, VOCABULARY_BYTES_MAX, &merges, &merges_length, error) != 0)
    goto out;
  t = tokenizer_parse_vocabulary(vocab, vocab_length, merges, merges_length, prefix_space, &added, error);
  if (!t)
    error_prefix(error, "'%s'", folder);
out:
  added_list_clear(&added);
  free(vocab);
  free(merges);
  return t;
}

/* transformers' settings of such a tokenizer: "legacy": false puts a space in front of a text's beginning only. */
static struct tokenizer *parse_model(const char *folder, const char *data, size_t length, struct settings *s, struct error *error) {
  const struct json_node *prefix = json_get(s->tokenizer, "add_prefix_space");
  struct added_list added;
  struct tokenizer *t = NULL;
  struct sentencepiece_settings settings = {.added = &added,
                                            .prefix = json_kind(prefix) == JSON_KIND_BOOL ? json_bool_or(prefix, false) : -1,
                                            .prefix_first = !json_bool_or(json_get(s->tokenizer, "legacy"), true)};
  if (read_added(folder, s, &added, error) == 0)
    t = tokenizer_parse_sentencepiece(data, length, &settings, error);
  added_list_clear(&added);
  return t;
}

static struct tokenizer *open_model(const char *folder, struct settings *s, struct error *error) {
  char path[PATH_BYTES], *data = NULL;
  size_t length;
  struct tokenizer *t = NULL;
  s->overrule = true;
  if (file_path(path, folder, "tokenizer.model", error) != 0 || read_large(path, MODEL_BYTES_MAX, &data, &length, error) != 0)
    return NULL;
  t = parse_model(folder, data, length, s, error);
  free(data);
  if (!t)
    error_prefix(error, "'%s'", path);
  return t;
}

/* Other names of SentencePiece models: those of encoders and of Unigram vocabularies, some with ids shifted by their class. */
static void refuse_folder(const char *folder, struct error *error) {
  static const char *const names[] = {"spiece.model", "sentencepiece.bpe.model"};
  char path[PATH_BYTES];
  for (int i = 0; i < 2; i++)
    if (file_path(path, folder, names[i], error) == 0 && path_is_file(path))
      error_set(error, ERROR_UNSUPPORTED,
                "'%s' has a SentencePiece model of the name %s and no tokenizer.json; read are tokenizer.json and tokenizer.model. "
                "transformers writes the first: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
                folder, names[i]);
  error_set(error, ERROR_NOT_FOUND, "'%s' has neither tokenizer.json nor vocab.json and merges.txt nor tokenizer.model", folder);
}

/* What a folder's vocabulary lies in, the first that is there; FILES_VOCABULARY and the next are those of vocabulary_names. */
enum files { FILES_NONE = -1, FILES_JSON, FILES_VOCABULARY, FILES_ENCODER, FILES_MODEL };

static enum files which_files(const char *folder) {
  char path[PATH_BYTES];
  static const char *const names[] = {"tokenizer.json", "vocab.json", "encoder.json", "tokenizer.model"};
  for (int i = 0; i < 4; i++)
    if (file_path(path, folder, names[i], NULL) == 0 && path_is_file(path))
      return (enum files)i;
  return FILES_NONE;
}

bool tokenizer_folder_has(const char *folder) { return which_files(folder) != FILES_NONE; }

static enum files find_files(const char *folder, struct error *error) {
  enum files files = FILES_NONE;
  if (!path_is_directory(folder))
    error_set(error, ERROR_NOT_FOUND, "'%s' is not a folder", folder);
  else if ((files = which_files(folder)) == FILES_NONE)
    refuse_folder(folder, error);
  return files;
}

struct tokenizer *tokenizer_open_folder(const char *folder, struct error *error) {
  char path[PATH_BYTES];
  struct settings settings = {0};
  struct tokenizer *t = NULL;
  enum files files = find_files(folder, error);
  if (files == FILES_NONE || settings_load(&settings, folder, error) != 0)
    goto out;
  if (file_path(path, folder, "tokenizer.json", error) != 0)
    goto out;
  t = files == FILES_JSON    ? open_json(path, error)
      : files == FILES_MODEL ? open_model(folder, &settings, error)
                             : open_vocabulary(folder, &settings, files - FILES_VOCABULARY, error);
  if (t && (settings_apply(t, &settings, error) != 0 || chat_apply(t, folder, &settings, error) != 0 ||
            tokenizer_finish(t, error) != 0)) {
    error_prefix(error, "'%s'", folder);
    tokenizer_free(t);
    t = NULL;
  }
out:
  settings_clear(&settings);
  return t;
}
