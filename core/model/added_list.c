/* added_list.c: owns the shapes in which settings write tokens; does not know the vocabulary they are added to. */
#include "core/model/added_list.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
#define NAMES (sizeof names / sizeof names[0])

static int push(struct added_list *list, struct added_entry entry, struct error *error) {
  if (list->count == list->capacity) {
    size_t capacity = size_max(32, list->capacity * 2);
    struct added_entry *at = realloc(list->at, capacity * sizeof *at);
    if (!at)
      return error_memory(error, capacity * sizeof *at);
    list->at = at;
    list->capacity = capacity;
  }
  list->at[list->count++] = entry;
  return 0;
}

/* A token is a text, or an object with the text as its content and flags beside it. */
static bool read_token(const struct json_node *node, struct added_entry *entry) {
  const struct json_node *content = json_text(node, NULL) ? node : json_get(node, "content");
  *entry = (struct added_entry){.token = {.id = -1,
                                          .special = json_bool_or(json_get(node, "special"), false),
                                          .lstrip = json_bool_or(json_get(node, "lstrip"), false),
                                          .rstrip = json_bool_or(json_get(node, "rstrip"), false),
                                          .single_word = json_bool_or(json_get(node, "single_word"), false)}};
  entry->text = json_text(content, &entry->length);
  return entry->text && entry->length > 0;
}

static int check_id(int64_t id, const char *shown, struct error *error) {
  if (id >= 0 && id < INT32_MAX)
    return 0;
  return error_set(error, ERROR_FORMAT, "the added token '%.64s' has an id that is none: allowed are 0 to %d", shown, INT32_MAX - 1);
}

/* {"32000": {"content": "<pad>", ...}, ...} */
static int read_decoder(struct added_list *list, const struct json_node *decoder, struct error *error) {
  const char *key;
  const struct json_node *value;
  struct added_entry entry;
  for (void *at = NULL; json_next(decoder, &at, &key, &value);) {
    char *end;
    long long id = strtoll(key, &end, 10);
    if (*key < '0' || *key > '9' || *end)
      id = -1;
    if (check_id(id, key, error) != 0)
      return -1;
    if (!read_token(value, &entry))
      return error_set(error, ERROR_FORMAT, "the added token %lld has no content", id);
    entry.token.id = (int32_t)id;
    if (push(list, entry, error) != 0)
      return -1;
  }
  return 0;
}

/* {"<pad>": 32000, ...} */
static int read_ids(struct added_list *list, const struct json_node *added, struct error *error) {
  const char *key;
  const struct json_node *value;
  for (void *at = NULL; json_next(added, &at, &key, &value);) {
    int64_t id = json_int_or(value, -1);
    if (check_id(id, key, error) != 0)
      return -1;
    struct added_entry entry = {.text = key, .length = strlen(key), .token = {.id = (int32_t)id}};
    if (entry.length == 0)
      return error_set(error, ERROR_FORMAT, "the added token %d has no content", entry.token.id);
    if (push(list, entry, error) != 0)
      return -1;
  }
  return 0;
}

/* A name makes a token special, and a piece of the vocabulary a token that is cut out. */
static int add_name(struct added_list *list, const struct json_node *node, struct error *error) {
  struct added_entry entry;
  if (!read_token(node, &entry))
    return 0;
  entry.token.special = true;
  return push(list, entry, error);
}

static int read_names(struct added_list *list, const struct json_node *file, struct error *error) {
  const struct json_node *more = json_get(file, "additional_special_tokens");
  for (size_t i = 0; i < NAMES; i++)
    if (add_name(list, json_get(file, names[i]), error) != 0)
      return -1;
  for (size_t i = 0; i < json_count(more); i++)
    if (json_kind(more) == JSON_KIND_ARRAY && add_name(list, json_at(more, i), error) != 0)
      return -1;
  return 0;
}

/* ---- one entry a text --------------------------------------------------------------------------- */

static int compare_texts(const char *a, size_t a_length, const char *b, size_t b_length) {
  int order = memcmp(a, b, size_min(a_length, b_length));
  return order ? order : (a_length > b_length) - (a_length < b_length);
}

/* By text; of the same text those with an id first. */
static int by_text(const void *a, const void *b) {
  const struct added_entry *x = a, *y = b;
  int order = compare_texts(x->text, x->length, y->text, y->length);
  return order ? order : (x->token.id < y->token.id) - (x->token.id > y->token.id);
}

static int by_id(const void *a, const void *b) {
  const struct added_entry *x = a, *y = b;
  return (x->token.id > y->token.id) - (x->token.id < y->token.id);
}

static int merge_texts(struct added_list *list, struct error *error) {
  size_t kept = 0;
  if (list->count)
    qsort(list->at, list->count, sizeof *list->at, by_text);
  for (size_t i = 0; i < list->count; i++) {
    struct added_entry *last = kept ? &list->at[kept - 1] : NULL, *entry = &list->at[i];
    if (!last || compare_texts(last->text, last->length, entry->text, entry->length) != 0) {
      list->at[kept++] = *entry;
      continue;
    }
    if (entry->token.id >= 0 && entry->token.id != last->token.id)
      return error_set(error, ERROR_FORMAT, "the added token '%.64s' stands twice, with ids %d and %d", entry->text,
                       last->token.id, entry->token.id);
    last->token.special = last->token.special || entry->token.special;
  }
  list->count = kept;
  return 0;
}

/* As transformers does: where tokenizer_config.json lists the tokens, the older files count no more. */
int added_list_read(struct added_list *list, const struct json_node *config, const struct json_node *added,
                    const struct json_node *special, struct error *error) {
  const struct json_node *decoder = json_get(config, "added_tokens_decoder");
  bool listed = json_kind(decoder) == JSON_KIND_OBJECT;
  *list = (struct added_list){0};
  if ((listed ? read_decoder(list, decoder, error) : read_ids(list, added, error)) != 0)
    return -1;
  if (read_names(list, config, error) != 0)
    return -1;
  if (!listed && read_names(list, special, error) != 0)
    return -1;
  return merge_texts(list, error);
}

void added_list_clear(struct added_list *list) {
  free(list->at);
  *list = (struct added_list){0};
}

void added_list_offer(struct added_list *list, int32_t id, const char *text, size_t length) {
  size_t low = 0, high = list->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    struct added_entry *entry = &list->at[middle];
    int order = compare_texts(entry->text, entry->length, text, length);
    if (order == 0 && entry->token.id < 0)
      entry->token.id = id;
    if (order == 0)
      return;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
}

int added_list_settle(struct added_list *list, struct error *error) {
  size_t kept = 0;
  for (size_t i = 0; i < list->count; i++)
    if (list->at[i].token.id >= 0)
      list->at[kept++] = list->at[i];
  list->count = kept;
  if (kept)
    qsort(list->at, kept, sizeof *list->at, by_id);
  for (size_t i = 1; i < kept; i++)
    if (list->at[i].token.id == list->at[i - 1].token.id)
      return error_set(error, ERROR_FORMAT, "the added tokens '%.64s' and '%.64s' have one id, %d", list->at[i - 1].text,
                       list->at[i].text, list->at[i].token.id);
  return 0;
}

int32_t added_list_last(const struct added_list *list) {
  int32_t last = -1;
  for (size_t i = 0; i < list->count; i++)
    if (list->at[i].token.id > last)
      last = list->at[i].token.id;
  return last;
}
