/* test_import.c: a store through Neuronpedia's batches and back, every field the same; upstream's own habits; lines and files
 * that are not what they claim; doing it twice; gzip files that are cut off. */
#include "tests/unit/store_world.h"

#include <dirent.h>
#include <sys/stat.h>

#include "core/archive.h"
#include "core/base/gzip_lines.h"

#define N_FEATURES 40
#define PLACE "\"modelId\":\"tiny\",\"layer\":\"7-res\""

/* ---- folders ---- */

struct room {
  struct world from, to;
  char folder[96]; /* of the export, inside from's own */
  int64_t source;  /* the number in `from` */
};

static void room_open(struct room *room) {
  memset(room, 0, sizeof *room);
  world_init(&room->from);
  world_init(&room->to);
  world_open(&room->from);
  world_open(&room->to);
  snprintf(room->folder, sizeof room->folder, "%s/dump", room->from.folder);
}

static void room_close(struct room *room) {
  world_end(&room->from);
  world_end(&room->to);
}

static int import_to(struct world *world, const char *folder, struct archive_progress *done, struct error *error) {
  struct archive_import_args args = {.folder = folder};
  return archive_import(world->store, &args, done, error);
}

static int export_from(struct world *world, const char *folder, int digits, struct error *error) {
  struct archive_export_args args = {.model_id = "tiny", .source_id = "7-res", .folder = folder, .digits = digits};
  return archive_export(world->store, &args, NULL, error);
}

static char *text_of(const char *format, ...) {
  static char out[4][256];
  static int next;
  va_list list;
  next = (next + 1) % 4;
  va_start(list, format);
  vsnprintf(out[next], sizeof out[next], format, list);
  va_end(list);
  return out[next];
}

/* A file of a folder of batches, with its folders. */
static void put_file(const char *folder, const char *part, const char *name, const char *text) {
  mkdir(folder, 0777);
  mkdir(text_of("%s/%s", folder, part), 0777);
  FILE *file = fopen(text_of("%s/%s/%s", folder, part, name), "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

/* ---- a store with something in every column ---- */

static void fill_explanations(struct world *world, int64_t source) {
  struct store_explanation rows[] = {
      {.origin = STORE_AUTOMATIC, .description = "fires on \xE2\x80\x9Cthe\xE2\x80\x9D", .type = "auto", .model_name = "rules-1",
       .score = NAN, .created_at = "2026-01-02T03:04:05.678Z"},
      {.origin = STORE_IMPORTED, .description = "line\nbreak <b> \\u0000 \"q\"", .type = "np", .model_name = "gpt-4o-mini",
       .author = "cuid", .notes = "a note", .score = 0.1, .scores = "[{\"value\":0.5,\"name\":\"recall\"}]",
       .created_at = "2025-01-02T03:04:05.000Z"},
      {.origin = STORE_MANUAL, .description = "", .score = 1.0 / 3, .created_at = "2027-01-02T03:04:05.000Z"}};
  for (size_t i = 0; i < 3; i++) {
    rows[i].source = source;
    rows[i].index = 3;
    must(store_explanation_put(world->store, &rows[i], NULL, &error));
  }
}

/* Features made from numbers, with what JSON can hold: bytes that are not UTF-8, NUL and -0 have no way into a file. */
static void fix_texts(struct made *made) {
  for (int i = 0; i < 2; i++) made->logit_positions[i] += 0.0f;
  for (int e = 0; e < MADE_EXAMPLES; e++) made->tokens[e][1] = (struct store_text){"\xE2\x96\x81<\"\\\n\t\x7F&", 10};
  for (int i = 0; i < 2; i++) made->top[i] = made->tokens[0][i];
  made->examples[2].bin_min = made->examples[2].bin_max = made->examples[2].bin_contains = NAN;
  made->examples[2].qualifying = -1;
  made->examples[2].document = made->examples[2].position = -1;
}

static void make_feature(struct made *made, uint32_t index) {
  made_fill(made, index, 5);
  fix_texts(made);
  if (index == 7) made->feature.groups = STORE_LOGITS;                 /* groups stand alone */
  if (index == 8) made->feature.groups = STORE_EXAMPLES;
  if (index == 9) made->feature.n_fired = -1, made->feature.mean = made->feature.rate = NAN;
  if (index == 10) made->feature.activity.n = 0, made->feature.max = 0; /* never fired */
}

static void fill(struct room *room) {
  struct made made;
  struct store_source source = {0, "tiny", "7-res", "res", 7, "blocks.7.hook_resid_pre", "topk", N_FEATURES, "a hash",
    "{\"k\":32,\"b\":[1,0.5]}", "about", "https://y", "2021-02-03T00:00:00Z",
    {3145728, 24576, 128, true, false, true, "raw", "villes.txt", "c0ffee", "2022-01-01T00:00:00Z"}};
  struct store_model model = {"tiny", "Tiny", 3, 48, 192, "us", "https://x", "7-res", "hash", "2020-01-01T00:00:00Z"};
  must(store_model_put(room->from.store, &model, &error));
  must(store_source_put(room->from.store, &source, &room->source, &error));
  for (uint32_t i = 0; i < N_FEATURES; i++) {
    if (i == 11) continue; /* one of which nothing is known */
    make_feature(&made, i);
    struct store_batch batch = {.source = room->source, .features = &made.feature, .n_features = 1};
    must(store_batch_put(room->from.store, &batch, &error));
  }
  fill_explanations(&room->from, room->source);
}

/* ---- comparing ---- */

static bool same_bits(const void *a, const void *b, size_t bytes) { return bytes == 0 || memcmp(a, b, bytes) == 0; }

static void compare_example(const struct store_example *a, const struct store_example *b) {
  assert_true(a->slot == b->slot && a->n == b->n && same_texts(a->tokens, b->tokens, a->n));
  assert_true(same_bits(a->values, b->values, 4 * a->n) && same_real(a->bin_min, b->bin_min));
  assert_true(same_real(a->bin_max, b->bin_max) && same_real(a->bin_contains, b->bin_contains));
  assert_true(a->qualifying == b->qualifying && a->document == b->document && a->position == b->position);
  assert_true(a->max_value == b->max_value && a->max_index == b->max_index && a->min_value == b->min_value);
  assert_true(same_text(a->data_index, b->data_index) && same_text(a->extra, b->extra));
}

static void compare_explanation(const struct store_explanation *a, const struct store_explanation *b) {
  assert_true(a->index == b->index && a->origin == b->origin && same_real(a->score, b->score));
  assert_string_equal(a->description, b->description);
  assert_true(same_text(a->type, b->type) && same_text(a->model_name, b->model_name) && same_text(a->author, b->author));
  assert_true(same_text(a->notes, b->notes) && same_text(a->scores, b->scores) && same_text(a->created_at, b->created_at));
}

static void compare_feature(const struct store_feature *a, const struct store_feature *b) {
  assert_int_equal(a->groups, b->groups);
  assert_true(a->n_fired == b->n_fired && same_real(a->rate, b->rate) && same_real(a->mean, b->mean));
  assert_true(same_real(a->max, b->max) && same_histogram(&a->activity, &b->activity));
  assert_true(same_histogram(&a->logits, &b->logits) && same_tokens(&a->top, &b->top) && same_tokens(&a->bottom, &b->bottom));
  assert_true(a->n_neighbours == b->n_neighbours && same_bits(a->neighbours, b->neighbours, 4 * a->n_neighbours));
  assert_true(same_bits(a->cosines, b->cosines, 4 * a->n_neighbours) && same_text(a->extra, b->extra));
  assert_true(same_place(&a->place, &b->place));
  assert_int_equal(a->n_examples, b->n_examples);
  for (size_t i = 0; i < a->n_examples; i++) compare_example(&a->examples[i], &b->examples[i]);
  assert_int_equal(a->n_explanations, b->n_explanations);
  for (size_t i = 0; i < a->n_explanations; i++) compare_explanation(&a->explanations[i], &b->explanations[i]);
}

static void compare_sources(const struct store_source *a, const struct store_source *b) {
  const struct store_statistics *s = &a->statistics, *t = &b->statistics;
  assert_true(same_text(a->set, b->set) && a->layer == b->layer && same_text(a->point, b->point));
  assert_true(same_text(a->kind, b->kind) && a->n_features == b->n_features && same_text(a->identity, b->identity));
  assert_true(same_text(a->config, b->config) && same_text(a->description, b->description) && same_text(a->url, b->url));
  assert_true(same_text(a->created_at, b->created_at) && s->n_tokens == t->n_tokens && s->n_documents == t->n_documents);
  assert_true(s->context == t->context && s->bos_counted == t->bos_counted && s->folded == t->folded);
  assert_true(s->lines == t->lines && same_text(s->logit_convention, t->logit_convention));
  assert_true(same_text(s->corpus, t->corpus) && same_text(s->corpus_hash, t->corpus_hash));
  assert_true(same_text(s->made_at, t->made_at));
}

static void compare_stores(struct room *room) {
  struct store_source a, b;
  struct store_model m, n;
  assert_int_equal(store_source_find(room->from.store, "tiny", "7-res", &room->from.arena, &a, NULL), 1);
  assert_int_equal(store_source_find(room->to.store, "tiny", "7-res", &room->to.arena, &b, NULL), 1);
  compare_sources(&a, &b);
  assert_int_equal(store_model_find(room->from.store, "tiny", &room->from.arena, &m, NULL), 1);
  assert_int_equal(store_model_find(room->to.store, "tiny", &room->to.arena, &n, NULL), 1);
  assert_true(same_text(m.display_name, n.display_name) && m.layers == n.layers && m.dimension == n.dimension);
  assert_true(m.neurons_per_layer == n.neurons_per_layer && same_text(m.owner, n.owner) && same_text(m.website, n.website));
  assert_true(same_text(m.default_source, n.default_source) && same_text(m.identity, n.identity));
  assert_true(same_text(m.created_at, n.created_at));
  for (uint32_t i = 0; i < N_FEATURES; i++) {
    struct store_feature left, right;
    int found = store_feature_get(room->from.store, a.id, i, 100, &room->from.arena, &left, NULL);
    assert_int_equal(store_feature_get(room->to.store, b.id, i, 100, &room->to.arena, &right, NULL), found);
    assert_int_equal(found, i != 11);
    if (found) compare_feature(&left, &right);
  }
}

/* ---- tests ---- */

static void test_round_trip(void **state) {
  (void)state;
  struct room room;
  struct archive_progress done;
  room_open(&room);
  fill(&room);
  must(export_from(&room.from, room.folder, 0, &error));
  must(import_to(&room.to, room.folder, &done, &error));
  assert_true(done.features == N_FEATURES - 2 && done.examples == (N_FEATURES - 2) * MADE_EXAMPLES);
  assert_int_equal(done.explanations, 3);
  compare_stores(&room);

  must(import_to(&room.to, room.folder, &done, &error)); /* again */
  assert_int_equal(done.explanations, 0);
  compare_stores(&room);

  must_fail(ERROR_ARGUMENT, export_from(&room.from, room.folder, 0, &error)); /* never into an older export */
  room_close(&room);
}

/* The same rows are the same bytes, from the store they came from and from the one they went to. */
static void test_same_bytes(void **state) {
  (void)state;
  struct room room;
  char again[128], command[320];
  room_open(&room);
  fill(&room);
  snprintf(again, sizeof again, "%s/dump", room.to.folder);
  must(export_from(&room.from, room.folder, 0, &error));
  must(import_to(&room.to, room.folder, NULL, &error));
  must(export_from(&room.to, again, 0, &error));
  snprintf(command, sizeof command, "diff -r -x explanations '%s' '%s'", room.folder, again); /* they have new numbers */
  assert_int_equal(system(command), 0);
  room_close(&room);
}

static void test_digits(void **state) {
  (void)state;
  struct room room;
  struct store_feature feature;
  room_open(&room);
  fill(&room);
  must(export_from(&room.from, room.folder, 3, &error));
  must(import_to(&room.to, room.folder, NULL, &error));
  assert_int_equal(store_feature_get(room.to.store, 1, 2, 9, &room.to.arena, &feature, NULL), 1);
  struct made made;
  make_feature(&made, 2); /* seed 5: x = 67 mod 17 = 16 */
  assert_true(feature.rate == made.feature.rate && feature.cosines[0] == 0.0588f); /* 1 / 17 */
  assert_true(feature.top.values[0] == 17.6f && feature.mean == 4.8);
  room_close(&room);
}

/* What the converter of upstream writes: index as a number, no columns of ours, patterns of attention, NUL in a token. */
static void test_upstream(void **state) {
  (void)state;
  struct room room;
  struct store_feature feature;
  struct store_source source;
  room_open(&room);
  put_file(room.folder, "features", "batch-0.jsonl",
           "{" PLACE ",\"index\":5,\"maxActApprox\":2.5,\"frac_nonzero\":0.25,\"pos_str\":[\" a\\u0000b\",\"\\\\u0000\"],"
           "\"pos_values\":[2,1],\"topkCosSimIndices\":[],\"topkCosSimValues\":[],\"vector\":[],\"hasVector\":false,"
           "\"umap_x\":1.0,\"correlated_neurons_indices\":[4],\"hookName\":null}\n");
  put_file(room.folder, "activations", "batch-0.jsonl",
           "{\"id\":\"c1\"," PLACE ",\"index\":5,\"tokens\":[\"x\",\"y\"],\"values\":[0,2.5],\"binMin\":-1,\"binMax\":2.5,"
           "\"binContains\":-1,\"dataIndex\":12,\"zIndices\":[[1],[2]],\"zValues\":[],\"dfaValues\":[0.5,1]}\n"
           "{\"id\":\"c2\"," PLACE ",\"index\":6,\"tokens\":[\"x\"],\"values\":[1],\"qualifyingTokenIndex\":null}\n"
           "{\"id\":\"c3\"," PLACE ",\"index\":5,\"tokens\":[\"z\"],\"values\":[3]}\n");
  put_file(room.folder, "explanations", "batch-0.jsonl",
           "{\"id\":\"c4\"," PLACE ",\"index\":\"5\",\"description\":\"sea\",\"typeName\":\"oai_token-act-pair\","
           "\"explanationModelName\":\"gpt-4o-mini\",\"scoreV1\":0,\"scoreV2\":null,\"embedding\":[0.1,0.2]}\n\n");
  must(import_to(&room.to, room.folder, NULL, &error));
  assert_int_equal(store_feature_get(room.to.store, 1, 5, 9, &room.to.arena, &feature, NULL), 1);
  assert_int_equal(feature.groups, STORE_STATISTICS | STORE_LOGITS | STORE_PLACE | STORE_EXTRA | STORE_EXAMPLES);
  assert_true(feature.rate == 0.25 && feature.max == 2.5f && feature.n_fired == -1 && isnan(feature.mean));
  assert_string_equal(feature.top.texts[0].text, " a b");
  assert_string_equal(feature.top.texts[1].text, "\\u0000");
  assert_string_equal(feature.extra, "{\"correlated_neurons_indices\":[4]}");
  assert_true(feature.groups & STORE_PLACE && feature.place.x == 1 && isnan(feature.place.y) && isnan(feature.place.cluster));
  assert_int_equal(feature.n_examples, 2); /* strongest first; the rows of a feature need not stand together */
  assert_true(feature.examples[0].max_value == 3 && feature.examples[1].bin_min == -1 && isnan(feature.examples[0].bin_min));
  assert_string_equal(feature.examples[1].data_index, "12");
  assert_string_equal(feature.examples[1].extra, "{\"zKIndices\":[1],\"zQIndices\":[2],\"dfaValues\":[0.5,1]}");
  assert_int_equal(feature.n_explanations, 1);
  assert_int_equal(feature.explanations[0].origin, STORE_IMPORTED);
  assert_true(isnan(feature.explanations[0].score));
  assert_string_equal(feature.explanations[0].model_name, "gpt-4o-mini");
  assert_int_equal(store_source_find(room.to.store, "tiny", "7-res", &room.to.arena, &source, NULL), 1);
  assert_true(source.n_features == 7 && source.layer == 7 && source.statistics.folded && source.statistics.made_at);
  room_close(&room);
}

/* An imported explanation stands before one made by rule, and explanations alone are no statistics. */
static void test_explanations_alone(void **state) {
  (void)state;
  struct room room;
  struct store_feature feature;
  struct store_source source;
  room_open(&room);
  int64_t number = world_source(&room.to, "7-res", N_FEATURES);
  struct store_explanation rule = {.source = number, .index = 5, .description = "by rule", .type = "auto", .score = NAN};
  must(store_explanation_put(room.to.store, &rule, NULL, &error));
  put_file(room.folder, "explanations", "batch-0.jsonl", "{" PLACE ",\"index\":\"5\",\"description\":\"sea\"}");
  must(import_to(&room.to, room.folder, NULL, &error));
  assert_int_equal(store_feature_get(room.to.store, number, 5, 9, &room.to.arena, &feature, NULL), 1);
  assert_int_equal(feature.n_explanations, 2);
  assert_string_equal(feature.explanations[0].description, "sea");
  assert_int_equal(store_source_at(room.to.store, number, &room.to.arena, &source, NULL), 1);
  assert_null(source.statistics.made_at);
  room_close(&room);
}

/* Into another name, and only there. */
static void test_names(void **state) {
  (void)state;
  struct room room;
  struct store_source source;
  room_open(&room);
  fill(&room);
  must(export_from(&room.from, room.folder, 0, &error));
  struct archive_import_args args = {.folder = room.folder, .model_id = "other", .source_id = "3-x"};
  must(archive_import(room.to.store, &args, NULL, &error));
  assert_int_equal(store_source_find(room.to.store, "other", "3-x", &room.to.arena, &source, NULL), 1);
  assert_int_equal(store_source_find(room.to.store, "tiny", "7-res", &room.to.arena, &source, NULL), 0);
  args.source_id = NULL;
  must_fail(ERROR_ARGUMENT, archive_import(room.to.store, &args, NULL, &error));
  struct store_source another = {.model = "tiny", .name = "7-res", .layer = 7, .n_features = N_FEATURES, .identity = "else"};
  must(store_source_put(room.to.store, &another, NULL, &error));
  must_fail(ERROR_ARGUMENT, import_to(&room.to, room.folder, NULL, &error)); /* made for another dictionary */
  room_close(&room);
}

/* More rows than one transaction takes, the examples of a feature scattered over all of them. */
static void test_many(void **state) {
  (void)state;
  struct room room;
  struct store_feature feature;
  struct buffer text;
  room_open(&room);
  buffer_init(&text, 0);
  for (int i = 0; i < 10000; i++)
    buffer_printf(&text, "{" PLACE ",\"index\":%d,\"tokens\":[\"t\"],\"values\":[%d]}\n", i % 7, i / 7);
  put_file(room.folder, "activations", "batch-10.jsonl", text.data);
  for (int round = 0; round < 2; round++) {
    must(import_to(&room.to, room.folder, NULL, &error));
    assert_int_equal(store_feature_get(room.to.store, 1, 3, 4096, &room.to.arena, &feature, NULL), 1);
    assert_int_equal(feature.n_examples, 1429);
    for (size_t i = 0; i < feature.n_examples; i++) /* strongest first, and put in the file's order */
      assert_true(feature.examples[i].slot == 1428 - (int)i && feature.examples[i].max_value == (float)(1428 - i));
  }
  buffer_clear(&text);
  room_close(&room);
}

static const struct {
  const char *part, *line, *says;
} hostile[] = {
    {"features", "{\"modelId\":\"tiny\"", "invalid JSON"},
    {"features", "[]", "no JSON object"},
    {"features", "{\"layer\":\"7-res\",\"index\":1}", "modelId"},
    {"features", "{\"modelId\":\"tiny\",\"layer\":7,\"index\":1}", "layer"},
    {"features", "{" PLACE "}", "index"},
    {"features", "{" PLACE ",\"index\":-1}", "index"},
    {"features", "{" PLACE ",\"index\":1.5}", "index"},
    {"features", "{" PLACE ",\"index\":\"0x1\"}", "index"},
    {"features", "{" PLACE ",\"index\":4294967296}", "index"},
    {"features", "{" PLACE ",\"index\":40}", "features 0 to 39"},
    {"features", "{\"modelId\":\"tiny\",\"layer\":\"8-res\",\"index\":1}", "expected 'tiny/7-res'"},
    {"features", "{" PLACE ",\"index\":1,\"index\":2}", "duplicate"},
    {"features", "{" PLACE ",\"index\":1,\"frac_nonzero\":NaN}", "invalid JSON"},
    {"features", "{" PLACE ",\"index\":1,\"frac_nonzero\":\"0.5\"}", "frac_nonzero is a string"},
    {"features", "{" PLACE ",\"index\":1,\"maxActApprox\":1e300}", "beyond the range"},
    {"features", "{" PLACE ",\"index\":1,\"pos_str\":[\"a\"],\"pos_values\":[]}", "pos_str has 1 entries and pos_values 0"},
    {"features", "{" PLACE ",\"index\":1,\"pos_str\":\"a\"}", "pos_str is a string, expected an array"},
    {"features", "{" PLACE ",\"index\":1,\"pos_str\":[1],\"pos_values\":[1]}", "pos_str[0]"},
    {"features", "{" PLACE ",\"index\":1,\"topkCosSimIndices\":[-1],\"topkCosSimValues\":[1]}", "topkCosSimIndices[0]"},
    {"features", "{" PLACE ",\"index\":1,\"x\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", "deeper"},
    {"activations", "{" PLACE ",\"index\":1}", "tokens has 0 entries"},
    {"activations", "{" PLACE ",\"index\":1,\"tokens\":[\"a\",\"b\"],\"values\":[1]}", "tokens has 2 entries and values 1"},
    {"activations", "{" PLACE ",\"index\":1,\"tokens\":[\"a\"],\"values\":[null]}", "values[0] is null"},
    {"activations", "{" PLACE ",\"index\":1,\"tokens\":[\"a\"],\"values\":[1e39]}", "values[0]"},
    {"activations", "{" PLACE ",\"index\":1,\"tokens\":[\"a\"],\"values\":[1],\"qualifyingTokenIndex\":1}", "qualifying"},
    {"activations", "{" PLACE ",\"index\":1,\"tokens\":[\"\xff\"],\"values\":[1]}", "invalid JSON"},
    {"explanations", "{" PLACE ",\"index\":1}", "description is missing"},
    {"explanations", "{" PLACE ",\"index\":1,\"description\":[]}", "description is an array"},
    {"explanations", "{" PLACE ",\"index\":1,\"description\":\"a\",\"origin\":\"god\"}", "origin is 'god'"},
};

/* Each behind two good lines: refused by file and line, in words. */
static void test_hostile(void **state) {
  (void)state;
  static const char *const good[] = {"{" PLACE ",\"index\":0}", "{" PLACE ",\"index\":0,\"tokens\":[\"a\"],\"values\":[1]}",
                                     "{" PLACE ",\"index\":0,\"description\":\"a\"}"};
  for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
    struct room room;
    struct error error = ERROR_INIT;
    char text[1024];
    const char *first = good[hostile[i].part[0] == 'f' ? 0 : hostile[i].part[0] == 'a' ? 1 : 2];
    room_open(&room);
    world_source(&room.to, "7-res", N_FEATURES);
    snprintf(text, sizeof text, "%s\n%s\n%s\n%s\n", first, first, hostile[i].line, first);
    put_file(room.folder, hostile[i].part, "batch-2.jsonl", text);
    assert_int_equal(import_to(&room.to, room.folder, NULL, &error), -1);
    if (error.code != ERROR_FORMAT || !strstr(error.text, "batch-2.jsonl' line 3: ") || !strstr(error.text, hostile[i].says))
      fail_msg("%s: wanted '%s', got %s", hostile[i].line, hostile[i].says, error.text);
    room_close(&room);
  }
}

static void test_hostile_folders(void **state) {
  (void)state;
  struct room room;
  room_open(&room);
  must_fail(ERROR_NOT_FOUND, import_to(&room.to, "/no/such/folder", NULL, &error));
  mkdir(room.folder, 0777);
  must_fail(ERROR_NOT_FOUND, import_to(&room.to, room.folder, NULL, &error));
  put_file(room.folder, "features", "batch-x.jsonl", "no batch");
  must_fail(ERROR_NOT_FOUND, import_to(&room.to, room.folder, NULL, &error));
  put_file(room.folder, "features", "batch-0.jsonl", "");
  must_fail(ERROR_NOT_FOUND, import_to(&room.to, room.folder, NULL, &error));
  put_file(room.folder, ".", "source.jsonl", "{\"id\":\"7-res\"}");
  must_fail(ERROR_FORMAT, import_to(&room.to, room.folder, NULL, &error));
  assert_int_equal(mkdir(text_of("%s/features/batch-1.jsonl", room.folder), 0777), 0);
  put_file(room.folder, ".", "source.jsonl", "{\"id\":\"7-res\",\"modelId\":\"tiny\"}");
  must_fail(ERROR_FORMAT, import_to(&room.to, room.folder, NULL, &error));
  struct archive_export_args args = {.model_id = "tiny", .source_id = "none", .folder = room.folder};
  must_fail(ERROR_NOT_FOUND, archive_export(room.to.store, &args, NULL, &error));
  room_close(&room);
}

static bool stop(void *context, const struct archive_progress *progress) {
  (void)progress;
  return ++*(int *)context == 2;
}

/* Stopped in the middle the source has no statistics yet; begun anew it ends as an unbroken one. */
static void test_stopped(void **state) {
  (void)state;
  struct room room;
  struct store_source source;
  int calls = 0;
  room_open(&room);
  fill(&room);
  must(export_from(&room.from, room.folder, 0, &error));
  struct archive_import_args args = {.folder = room.folder, .tell = stop, .context = &calls};
  must_fail(ERROR_CANCELLED, archive_import(room.to.store, &args, NULL, &error));
  assert_int_equal(store_source_find(room.to.store, "tiny", "7-res", &room.to.arena, &source, NULL), 1);
  assert_null(source.statistics.made_at);
  must(import_to(&room.to, room.folder, NULL, &error));
  compare_stores(&room);
  room_close(&room);
}

/* ---- gzip files ---- */

static char *path_in(struct world *world, const char *name) { return text_of("%s/%s", world->folder, name); }

static void write_lines(const char *path, int n) {
  struct gzip_writer *writer = gzip_writer_open(path, NULL);
  assert_non_null(writer);
  for (int i = 0; i < n; i++) {
    char *line = text_of("line %d %d", i, i * i);
    must(gzip_writer_line(writer, line, strlen(line), &error));
  }
  must(gzip_writer_close(writer, &error));
}

/* How many lines come before the end (or the error, whose code is returned in *code). */
static int count_lines(const char *path, size_t limit, struct error *error) {
  char *line;
  size_t length;
  int n = 0, more;
  struct gzip_lines *lines = gzip_lines_open(path, limit, error);
  if (!lines) return -1;
  while ((more = gzip_lines_next(lines, &line, &length, error)) > 0) {
    assert_int_equal(gzip_lines_number(lines), ++n);
    assert_int_equal(strlen(line), length);
  }
  gzip_lines_close(lines);
  return more < 0 ? -1 : n;
}

static void put_bytes(const char *path, const char *bytes, size_t n) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, n, file), n);
  assert_int_equal(fclose(file), 0);
}

static size_t get_bytes(const char *path, char *bytes, size_t most) {
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  size_t n = fread(bytes, 1, most, file);
  fclose(file);
  return n;
}

static void test_gzip(void **state) {
  (void)state;
  struct world world;
  static char bytes[1 << 20];
  world_init(&world);
  write_lines(path_in(&world, "a.gz"), 20000);
  assert_int_equal(count_lines(path_in(&world, "a.gz"), GZIP_LINE_MOST, NULL), 20000);
  size_t n = get_bytes(path_in(&world, "a.gz"), bytes, sizeof bytes / 2);
  memcpy(bytes + n, bytes, n); /* members behind one another are one file */
  put_bytes(path_in(&world, "two.gz"), bytes, 2 * n);
  assert_int_equal(count_lines(path_in(&world, "two.gz"), GZIP_LINE_MOST, NULL), 40000);
  struct error error = ERROR_INIT;
  assert_null(gzip_writer_open(path_in(&world, "a.gz"), &error)); /* never over another file */
  assert_int_equal(error.code, ERROR_ARGUMENT);
  put_bytes(path_in(&world, "plain"), "a\n\nlast", 7);
  assert_int_equal(count_lines(path_in(&world, "plain"), 4, NULL), 3);
  put_bytes(path_in(&world, "empty"), "", 0);
  assert_int_equal(count_lines(path_in(&world, "empty"), 4, NULL), 0);
  world_end(&world);
}

static void test_gzip_damage(void **state) {
  (void)state;
  struct world world;
  static char bytes[1 << 20];
  world_init(&world);
  write_lines(path_in(&world, "a.gz"), 20000);
  size_t n = get_bytes(path_in(&world, "a.gz"), bytes, sizeof bytes);
  for (size_t cut = 2; cut < n; cut += cut < 40 || cut + 40 > n ? 1 : n / 50) {
    struct error error = ERROR_INIT;
    put_bytes(path_in(&world, "cut.gz"), bytes, cut);
    assert_int_equal(count_lines(path_in(&world, "cut.gz"), GZIP_LINE_MOST, &error), -1);
    if (error.code != ERROR_FORMAT || !strstr(error.text, "cut.gz': the compressed data is cut off after line"))
      fail_msg("cut at %zu: %s", cut, error.text);
  }
  bytes[n] = 'x';
  put_bytes(path_in(&world, "more.gz"), bytes, n + 1);
  must_fail(ERROR_FORMAT, count_lines(path_in(&world, "more.gz"), GZIP_LINE_MOST, &error));
  bytes[n / 2] ^= 1;
  put_bytes(path_in(&world, "flip.gz"), bytes, n);
  must_fail(ERROR_FORMAT, count_lines(path_in(&world, "flip.gz"), GZIP_LINE_MOST, &error));
  put_bytes(path_in(&world, "long"), "ab\nabcde\n", 9);
  must_fail(ERROR_LIMIT, count_lines(path_in(&world, "long"), 4, &error));
  must_fail(ERROR_FORMAT, count_lines(world.folder, 4, &error));
  must_fail(ERROR_NOT_FOUND, count_lines(path_in(&world, "none"), 4, &error));
  world_end(&world);
}

/* A batch that is cut off is refused by its name, and nothing counts as imported. */
static void test_truncated_batch(void **state) {
  (void)state;
  struct room room;
  static char bytes[1 << 16];
  room_open(&room);
  fill(&room);
  must(export_from(&room.from, room.folder, 0, &error));
  struct error error = ERROR_INIT;
  char *path = text_of("%s/activations/batch-0.jsonl.gz", room.folder);
  size_t n = get_bytes(path, bytes, sizeof bytes);
  put_bytes(path, bytes, n - 5);
  assert_int_equal(import_to(&room.to, room.folder, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_FORMAT);
  assert_non_null(strstr(error.text, "activations/batch-0.jsonl.gz"));
  assert_non_null(strstr(error.text, "cut off"));
  room_close(&room);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_digits),
      cmocka_unit_test(test_upstream),        cmocka_unit_test(test_explanations_alone),
      cmocka_unit_test(test_names),           cmocka_unit_test(test_many),       cmocka_unit_test(test_hostile),
      cmocka_unit_test(test_hostile_folders), cmocka_unit_test(test_stopped),    cmocka_unit_test(test_gzip),
      cmocka_unit_test(test_gzip_damage),     cmocka_unit_test(test_truncated_batch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
