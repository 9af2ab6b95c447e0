#include "api/graph_check.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/json_reader.h"
#include "core/base/json_writer.h"
#include "core/base/number.h"
#include "core/base/utf8.h"

/* Kinds that a member may have, as bits; what is not required may be null as well. */
enum { TEXT = 1, INTEGER = 2, NUMBER = 4, NOTHING = 8, BOOLEAN = 16, OBJECT = 32, TEXTS = 64, GROUPS = 128 };

struct member {
  const char *name;
  int kinds;
  bool required;
};

static const struct member metadata_members[] = {
    {"slug", TEXT, true}, {"scan", TEXT, true}, {"prompt", TEXT, true}, {"prompt_tokens", TEXTS, true},
    {"node_threshold", NUMBER, false}, {"feature_details", OBJECT, false}, {"info", OBJECT, false}, {NULL, 0, false}};

static const struct member choice_members[] = {{"pinnedIds", TEXTS, false}, {"supernodes", GROUPS, false}, {"linkType", TEXT, false},
                                               {"clickedId", TEXT, false}, {"sg_pos", TEXT, false}, {NULL, 0, false}};

static const struct member node_members[] = {
    {"node_id", TEXT, true}, {"feature", INTEGER | NOTHING, true}, {"layer", TEXT | INTEGER, true}, {"ctx_idx", INTEGER, true},
    {"feature_type", TEXT, true}, {"jsNodeId", TEXT, true}, {"clerp", TEXT, true}, {"influence", NUMBER, false},
    {"activation", NUMBER, false}, {"token_prob", NUMBER, false}, {"is_target_logit", BOOLEAN, false}, {"source", TEXT, false},
    {"index", INTEGER, false}, {NULL, 0, false}};

static const struct member link_members[] = {{"source", TEXT, true}, {"target", TEXT, true}, {"weight", NUMBER, true}, {NULL, 0, false}};

static const char *words_of(int kinds) {
  switch (kinds) {
    case TEXT: return "a string";
    case INTEGER: return "an integer";
    case NUMBER: return "a number";
    case INTEGER | NOTHING: return "an integer or null";
    case TEXT | INTEGER: return "a string or an integer";
    case BOOLEAN: return "true or false";
    case TEXTS: return "an array of strings";
    case GROUPS: return "an array of arrays of strings";
    default: return "an object";
  }
}

static bool all_texts(const struct json_node *array) {
  bool good = json_kind(array) == JSON_KIND_ARRAY;
  for (size_t i = 0; good && i < json_count(array); i++) good = json_kind(json_at(array, i)) == JSON_KIND_STRING;
  return good;
}

static bool all_groups(const struct json_node *array) {
  bool good = json_kind(array) == JSON_KIND_ARRAY;
  for (size_t i = 0; good && i < json_count(array); i++) good = all_texts(json_at(array, i));
  return good;
}

static bool is_of(const struct json_node *node, int kinds) {
  switch (json_kind(node)) {
    case JSON_KIND_STRING: return kinds & TEXT;
    case JSON_KIND_INT: return kinds & (INTEGER | NUMBER);
    case JSON_KIND_REAL: return kinds & NUMBER;
    case JSON_KIND_NULL: return kinds & NOTHING;
    case JSON_KIND_BOOL: return kinds & BOOLEAN;
    case JSON_KIND_OBJECT: return kinds & OBJECT;
    case JSON_KIND_ARRAY: return ((kinds & TEXTS) && all_texts(node)) || ((kinds & GROUPS) && all_groups(node));
    default: return false;
  }
}

static int check_members(const struct json_node *object, const char *path, const struct member *members, struct error *error) {
  for (const struct member *m = members; m->name; m++) {
    const struct json_node *node = json_get(object, m->name);
    char name[64];
    snprintf(name, sizeof name, "%.40s.%s", path, m->name);
    if (!node && m->required) return error_set_field(error, ERROR_ARGUMENT, name, "'%s' is missing in the graph: it must be %s", name, words_of(m->kinds));
    if (!node || is_of(node, m->kinds) || (!m->required && json_kind(node) == JSON_KIND_NULL)) continue;
    return error_set_field(error, ERROR_ARGUMENT, name, "'%s' of the graph must be %s, found %s", name, words_of(m->kinds),
                           json_kind(node) == JSON_KIND_ARRAY ? "an array of something else" : json_kind_word(json_kind(node)));
  }
  return 0;
}

/* ---- what stands at the top ---- */

/* A part of the text: a whole value. */
struct span {
  const char *at;
  size_t length;
};

struct parts {
  struct span metadata, choices, nodes, links;
};

static struct span *part_of(struct parts *parts, const char *key, size_t length) {
  const struct {
    const char *key;
    struct span *span;
  } all[] = {{"metadata", &parts->metadata}, {"qParams", &parts->choices}, {"nodes", &parts->nodes}, {"links", &parts->links}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (strlen(all[i].key) == length && memcmp(all[i].key, key, length) == 0) return all[i].span;
  return NULL;
}

/* Steps over a value, which *out is then. */
static int read_span(struct json_reader *r, struct span *out, struct error *error) {
  (void)json_reader_peek(r); /* white space is no part of it */
  size_t from = r->at;
  if (json_reader_skip(r, GRAPH_JSON_DEPTH, error) != 0) return -1;
  *out = (struct span){r->text + from, r->at - from};
  return 0;
}

static int read_parts(struct json_reader *r, struct parts *parts, struct error *error) {
  const char *key;
  size_t length;
  int more = json_reader_open(r, '{', error);
  if (more != 0) return -1;
  while ((more = json_reader_key(r, &key, &length, error)) == 1) {
    struct span *span = part_of(parts, key, length), other;
    if (span && span->at) return error_set(error, ERROR_FORMAT, "the key '%.20s' stands twice in the graph", key);
    if (read_span(r, span ? span : &other, error) != 0) return -1;
  }
  return more == 0 ? json_reader_end(r, error) : -1;
}

static int find_parts(const char *text, size_t length, struct parts *parts, struct error *error) {
  static const char *const names[] = {"metadata", "qParams", "nodes", "links"};
  struct json_reader r;
  *parts = (struct parts){{0}, {0}, {0}, {0}};
  json_reader_init(&r, text, length);
  int result = read_parts(&r, parts, error);
  json_reader_clear(&r);
  const struct span *found[] = {&parts->metadata, &parts->choices, &parts->nodes, &parts->links};
  for (size_t i = 0; result == 0 && i < sizeof names / sizeof *names; i++)
    if (!found[i]->at)
      result = error_set_field(error, ERROR_ARGUMENT, names[i], "'%s' is missing in the graph, which must have 'metadata', 'qParams', 'nodes' and 'links'",
                               names[i]);
  return result;
}

/* The tree of a part, which is an object. */
static struct json_node *tree_of(const struct span *span, const char *path, struct error *error) {
  if (*span->at != '{') return error_set_field(error, ERROR_ARGUMENT, path, "'%s' of the graph must be an object", path), NULL;
  struct json_node *tree = json_parse(span->at, span->length, GRAPH_JSON_DEPTH, error);
  if (!tree) error_put_prefix(error, "%s", path);
  return tree;
}

/* ---- metadata ---- */

static int check_name(const char *name, const char *field, struct error *error) {
  size_t n = strlen(name);
  bool good = n >= 1 && n <= GRAPH_SLUG_MOST && name[0] != '.';
  for (size_t i = 0; good && i < n; i++) good = (isalnum((unsigned char)name[i]) && (unsigned char)name[i] < 0x80) || strchr("_-.", name[i]);
  if (good) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "'%s' of the graph is '%.128s', allowed are 1 to %d letters, digits, '_', '-' and '.', which is not "
                         "the first", field, name, GRAPH_SLUG_MOST);
}

/* Of "set" and "somebody/set" the last part. */
static const char *set_of(const struct json_node *metadata) {
  const char *set = json_text(json_get(json_get(metadata, "feature_details"), "neuronpedia_source_set"), NULL);
  if (!set) set = json_text(json_get(json_get(metadata, "info"), "neuronpedia_source_set"), NULL);
  const char *slash = set ? strrchr(set, '/') : NULL;
  if (slash) set = slash + 1;
  return set && *set && strlen(set) <= 128 ? set : NULL;
}

static const char *json_of(const struct json_node *node, struct arena *arena, struct error *error) {
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_node(&w, node);
  const char *out = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return out;
}

static const char *copy(const char *text, struct arena *arena, struct error *error) { return arena_text(arena, text, strlen(text), error); }

static int keep_facts(const struct json_node *metadata, struct arena *arena, struct graph_facts *out, struct error *error) {
  const char *set = set_of(metadata), *slug = json_text(json_get(metadata, "slug"), NULL), *model = json_text(json_get(metadata, "scan"), NULL);
  if (check_name(model, "metadata.scan", error) != 0 || check_name(slug, "metadata.slug", error) != 0) return -1;
  out->model = copy(model, arena, error);
  out->slug = copy(slug, arena, error);
  out->prompt = copy(json_text(json_get(metadata, "prompt"), NULL), arena, error);
  out->tokens = json_of(json_get(metadata, "prompt_tokens"), arena, error);
  out->source_set = set ? copy(set, arena, error) : NULL;
  return out->model && out->slug && out->prompt && out->tokens && (!set || out->source_set) ? 0 : -1;
}

static int check_metadata(const struct span *span, struct arena *arena, struct graph_facts *out, size_t *n_tokens, struct error *error) {
  struct json_node *metadata = tree_of(span, "metadata", error);
  if (!metadata) return -1;
  int result = check_members(metadata, "metadata", metadata_members, error);
  *n_tokens = json_count(json_get(metadata, "prompt_tokens"));
  if (result == 0 && (*n_tokens < 1 || *n_tokens > GRAPH_TOKENS_MOST))
    result = error_set_field(error, ERROR_ARGUMENT, "metadata.prompt_tokens", "'metadata.prompt_tokens' of the graph has %zu tokens, allowed are 1 to %d",
                             *n_tokens, GRAPH_TOKENS_MOST);
  if (result == 0) result = keep_facts(metadata, arena, out, error);
  json_free(metadata);
  return result;
}

static int check_choices(const struct span *span, struct error *error) {
  struct json_node *choices = tree_of(span, "qParams", error);
  if (!choices) return -1;
  int result = check_members(choices, "qParams", choice_members, error);
  json_free(choices);
  return result;
}

/* ---- nodes and links ---- */

/* "E", or a number of a layer, as a string or as it is. */
static bool is_layer(const struct json_node *node) {
  const char *text = json_text(node, NULL);
  int64_t layer = json_int_or(node, -1);
  if (text && strcmp(text, "E") == 0) return true;
  if (text && !number_parse_int(text, &layer)) return false;
  return layer >= 0 && layer <= GRAPH_LAYERS_MOST;
}

static int check_node(const struct json_node *node, const char *path, size_t n_tokens, struct error *error) {
  char name[64];
  if (check_members(node, path, node_members, error) != 0) return -1;
  int64_t position = json_int_or(json_get(node, "ctx_idx"), -1);
  if (position < 0 || (uint64_t)position >= n_tokens) {
    snprintf(name, sizeof name, "%.40s.ctx_idx", path);
    return error_set_field(error, ERROR_ARGUMENT, name, "'%s' of the graph is %lld, and 'metadata.prompt_tokens' has %zu tokens, from 0 on", name,
                           (long long)position, n_tokens);
  }
  if (is_layer(json_get(node, "layer"))) return 0;
  snprintf(name, sizeof name, "%.40s.layer", path);
  return error_set_field(error, ERROR_ARGUMENT, name, "'%s' of the graph must be \"E\" or the number of a layer, 0 to %d", name, GRAPH_LAYERS_MOST);
}

/* tokens 0: of links. */
static int check_element(const struct span *span, const char *list, int64_t i, size_t n_tokens, struct error *error) {
  char path[40];
  snprintf(path, sizeof path, "%s[%lld]", list, (long long)i);
  struct json_node *node = tree_of(span, path, error);
  if (!node) return -1;
  int result = n_tokens ? check_node(node, path, n_tokens, error) : check_members(node, path, link_members, error);
  json_free(node);
  return result;
}

static int check_list(const struct span *list, const char *name, size_t n_tokens, int64_t *count, struct error *error) {
  struct json_reader r;
  struct span element;
  *count = 0;
  if (*list->at != '[') return error_set_field(error, ERROR_ARGUMENT, name, "'%s' of the graph must be an array", name);
  json_reader_init(&r, list->at, list->length);
  int more = json_reader_open(&r, '[', error);
  if (more == 0) more = 1;
  while (more == 1 && (more = json_reader_item(&r, error)) == 1) {
    if (read_span(&r, &element, error) != 0 || check_element(&element, name, *count, n_tokens, error) != 0) more = -1;
    ++*count;
  }
  json_reader_clear(&r);
  return more;
}

int graph_check(const char *text, size_t length, struct arena *arena, struct graph_facts *out, struct error *error) {
  struct parts parts;
  size_t bad, n_tokens = 0;
  if (!utf8_valid(text, length, &bad)) return error_set(error, ERROR_FORMAT, "the graph is not UTF-8 at byte %zu", bad);
  if (json_check_depth(text, length, GRAPH_JSON_DEPTH, error) != 0 || find_parts(text, length, &parts, error) != 0) return error_prefix(error, "the graph");
  if (check_metadata(&parts.metadata, arena, out, &n_tokens, error) != 0 || check_choices(&parts.choices, error) != 0 ||
      check_list(&parts.nodes, "nodes", n_tokens, &out->n_nodes, error) != 0)
    return -1;
  return check_list(&parts.links, "links", 0, &out->n_links, error);
}
