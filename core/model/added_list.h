/* added_list.h: the tokens that a folder's settings add to a vocabulary that lies in a file of its own: "added_tokens_decoder"
 * of tokenizer_config.json, or added_tokens.json of older folders, and the special ones that tokenizer_config.json and
 * special_tokens_map.json name. */
#ifndef STEERD_CORE_MODEL_ADDED_LIST_H
#define STEERD_CORE_MODEL_ADDED_LIST_H

#include "core/base/json.h"
#include "core/model/added_tokens.h"

struct added_entry {
  const char *text; /* borrowed from the settings */
  size_t length;
  struct added_token token; /* id and flags; id -1: that of the piece with this text, if there is one */
};

struct added_list {
  struct added_entry *at; /* [count]; owned; no text twice, sorted by text until added_list_settle */
  size_t count, capacity;
};

/* Any of the three files may be NULL. ERROR_FORMAT names an id that is none, a token without a text or with two ids. *list is to be cleared in
 * any case. */
int added_list_read(struct added_list *list, const struct json_node *config, const struct json_node *added,
                    const struct json_node *special, struct error *error) MUST_CHECK;
void added_list_clear(struct added_list *list);

/* A piece of the vocabulary: gives its id to the token of the same text, where the settings give it none. */
void added_list_offer(struct added_list *list, int32_t id, const char *text, size_t length);

/* Behind the last offer: drops the tokens without an id, and sorts by id. ERROR_FORMAT: two tokens have one id. */
int added_list_settle(struct added_list *list, struct error *error) MUST_CHECK;

/* The largest id of a list, or -1. */
int32_t added_list_last(const struct added_list *list);

#endif
