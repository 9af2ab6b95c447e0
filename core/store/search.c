/* search.c: explanations by their words. What a user types never reaches the query language of the index: it is cut
 * at blanks, quotes and control characters, and every piece is quoted. */
#include "core/store/explanation_row.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/buffer.h"
#include "core/base/utf8.h"
#include "core/store/ranking.h"

#define SEARCH_LIMIT 1000

/* Bytes that end a word here; the index itself cuts words further, at punctuation of any script. */
static bool is_gap(char c) { return (unsigned char)c <= ' ' || c == '"' || c == 127; }

/* Whether the index can find a letter or digit in it. Bytes of other scripts count as letters here; a piece of which
 * the index keeps nothing is dropped by the blank between words, as it would not be by AND. */
static bool is_word(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c >= 0x80 || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) return true;
  }
  return false;
}

/* "first" "second" "thi"*  into out: the blank means "and". Returns the number of words. */
static int words_quote(const struct store_search *search, struct buffer *out) {
  int words = 0;
  const char *at = search->query, *end = at + search->query_length;
  while (at < end && words < STORE_QUERY_WORDS) {
    const char *start = at;
    while (at < end && !is_gap(*at)) at++;
    if (is_word(start, (size_t)(at - start))) {
      buffer_text(out, words++ ? search->any ? "\" OR \"" : "\" \"" : "\"");
      buffer_append(out, start, (size_t)(at - start));
    }
    while (at < end && is_gap(*at)) at++;
  }
  if (words) buffer_text(out, search->prefix ? "\"*" : "\"");
  return words;
}

static int query_build(const struct store_search *search, struct buffer *out, struct error *error) {
  if (search->query_length > STORE_QUERY_MAX)
    return error_set_field(error, ERROR_LIMIT, "query", "the search is %zu bytes long, and may have %d",
                           search->query_length, STORE_QUERY_MAX);
  if (!utf8_valid(search->query, search->query_length, NULL))
    return error_set_field(error, ERROR_ARGUMENT, "query", "the search is not valid UTF-8");
  if (!words_quote(search, out))
    return error_set_field(error, ERROR_ARGUMENT, "query", "the search has no word to look for");
  return buffer_check(out, error);
}

/* The sources to look in: a JSON array for the membership test, and the range of their rows. */
struct scope {
  struct buffer list;
  int64_t count, low, high; /* source numbers; no sources at all when count is 0 */
};

static void scope_add(struct scope *scope, int64_t source) {
  buffer_printf(&scope->list, "%s%lld", scope->count ? "," : "[", (long long)source);
  if (!scope->count || source < scope->low) scope->low = source;
  if (!scope->count || source > scope->high) scope->high = source;
  scope->count++;
}

static int scope_find(struct connection *reader, const struct store_search *search, struct scope *scope,
                      struct error *error) {
  struct row row;
  if (search->sources)
    for (size_t i = 0; i < search->n_sources; i++) scope_add(scope, search->sources[i]);
  else {
    row_open(&row, reader, "SELECT id FROM sources WHERE ?1 IS NULL OR model = ?1", NULL, error);
    row_put_text(&row, search->model);
    while (row_next(&row) == 1) scope_add(scope, row_int(&row));
    row_close(&row);
    if (row_check(&row) != 0) return -1;
  }
  buffer_char(&scope->list, ']');
  return buffer_check(&scope->list, error);
}

/* ---- the best of many ------------------------------------------------------------------------------- */

struct ranked {
  double rank;
  int64_t id;
};

/* The best `most` rows so far: a heap whose first one is the worst of them. */
struct best {
  struct ranked *rows;
  size_t n, most, capacity;
  double worst; /* a row must have a smaller rank, or the same and come later; infinite until there are `most` */
};

static bool is_worse(const struct ranked *a, const struct ranked *b) {
  return a->rank > b->rank || (a->rank == b->rank && a->id > b->id);
}

static void swap(struct ranked *a, struct ranked *b) {
  struct ranked kept = *a;
  *a = *b;
  *b = kept;
}

static void sink(struct best *best, size_t i) {
  for (size_t child; (child = 2 * i + 1) < best->n; i = child) {
    if (child + 1 < best->n && is_worse(&best->rows[child + 1], &best->rows[child])) child++;
    if (!is_worse(&best->rows[child], &best->rows[i])) return;
    swap(&best->rows[child], &best->rows[i]);
  }
}

static int best_grow(struct best *best, struct error *error) {
  size_t capacity = best->capacity ? 2 * best->capacity : 64;
  struct ranked *rows = realloc(best->rows, capacity * sizeof *rows);
  if (!rows) return error_memory(error, capacity * sizeof *rows);
  best->rows = rows;
  best->capacity = capacity;
  return 0;
}

static int best_add(struct best *best, struct ranked row, struct error *error) {
  if (best->n == best->most) {
    if (is_worse(&row, &best->rows[0])) return 0;
    best->rows[0] = row;
    sink(best, 0);
  } else {
    if (best->n == best->capacity && best_grow(best, error) != 0) return -1;
    size_t i = best->n++;
    best->rows[i] = row;
    for (; i && is_worse(&best->rows[i], &best->rows[(i - 1) / 2]); i = (i - 1) / 2)
      swap(&best->rows[i], &best->rows[(i - 1) / 2]);
  }
  if (best->n == best->most) best->worst = best->rows[0].rank;
  return 0;
}

/* Best first. */
static int by_rank(const void *left, const void *right) {
  return is_worse(left, right) ? 1 : -1; /* no two have the same id */
}

/* ---- one page --------------------------------------------------------------------------------------- */

/* The range lets the index skip everything outside it before anything is ranked. Of rows with any of the words most have
 * too few of them: those are not fetched for their length. Where all must stand, rows differ by little else. */
static int rank_rows(struct connection *reader, const char *words, bool any, const struct scope *scope, struct best *best,
                     struct error *error) {
  struct row row;
  int failed = 0;
  row_open(&row, reader, "SELECT e.id, relevance(explanation_words, e.description) FROM explanation_words"
           " CROSS JOIN explanations e ON e.id = explanation_words.rowid WHERE explanation_words MATCH ?1"
           " AND explanation_words.rowid BETWEEN ?2 AND ?3"
           " AND (?4 IS NULL OR explanation_words.rowid >> 32 IN (SELECT value FROM json_each(?4)))"
           " AND (?5 OR relevance(explanation_words, ?6))", NULL, error);
  row_put_text(&row, words);
  row_put_int(&row, source_first(scope->low));
  row_put_int(&row, source_last(scope->high));
  row_put_text(&row, scope->high - scope->low + 1 == scope->count ? NULL : scope->list.data);
  row_put_int(&row, !any);
  row_put_pointer(&row, &best->worst, RANKING_POINTER);
  while (!failed && row_next(&row) == 1) {
    struct ranked found;
    found.id = row_int(&row); /* columns are taken from left to right */
    found.rank = row_real(&row);
    failed = best_add(best, found, error);
  }
  row_close(&row);
  return failed || row_check(&row) != 0 ? -1 : 0;
}

/* Ids and ranks of up to limit + 1 rows. Returns how many, or -1. */
static int64_t page_rank(struct connection *reader, const struct store_search *search, const char *words,
                         const struct scope *scope, struct store_hit *hits, struct error *error) {
  struct best best = {.worst = INFINITY, .most = (size_t)search->offset + (size_t)search->limit + 1};
  int failed = rank_rows(reader, words, search->any, scope, &best, error);
  size_t n = 0;
  if (!failed && best.n) qsort(best.rows, best.n, sizeof *best.rows, by_rank);
  for (size_t i = (size_t)search->offset; !failed && i < best.n; i++, n++) {
    hits[n].explanation.id = best.rows[i].id;
    hits[n].rank = best.rows[i].rank;
  }
  free(best.rows);
  return failed ? -1 : (int64_t)n;
}

/* Only the rows of the page pay for a snippet. */
static int hit_fill(struct connection *reader, const char *words, struct arena *arena, struct store_hit *hit,
                    struct error *error) {
  struct row row;
  int64_t id = hit->explanation.id;
  row_open(&row, reader, "SELECT snippet(explanation_words, 0, char(2), char(3), '...', 24) FROM explanation_words"
           " WHERE explanation_words MATCH ?1 AND rowid = ?2", arena, error);
  row_put_text(&row, words);
  row_put_int(&row, id);
  if (row_next(&row) == 1) hit->snippet = row_text(&row);
  row_close(&row);
  if (row_check(&row) != 0) return -1;
  int got = explanation_by_id(reader, id, arena, &hit->explanation, error);
  if (got == 0) row_damaged(&row, "the index of explanations");
  return got == 1 ? 0 : -1;
}

static int search_run(struct connection *reader, const struct store_search *search, const char *words,
                      struct arena *arena, struct store_hit *hits, size_t *n, bool *more, struct error *error) {
  struct scope scope = {0};
  int result = scope_find(reader, search, &scope, error);
  int64_t found = 0;
  if (result == 0 && scope.count) found = page_rank(reader, search, words, &scope, hits, error);
  buffer_clear(&scope.list);
  if (result != 0 || found < 0) return -1;
  *n = (size_t)(found > search->limit ? search->limit : found);
  if (more) *more = found > search->limit;
  for (size_t i = 0; i < *n; i++)
    if (hit_fill(reader, words, arena, hits + i, error) != 0) return -1;
  return 0;
}

int store_explanation_search(struct store *store, const struct store_search *search, struct arena *arena,
                             struct store_hit **out, size_t *n, bool *more, struct error *error) {
  struct buffer words;
  int result = -1;
  if (search->limit < 1 || search->limit > SEARCH_LIMIT || search->offset < 0)
    return error_set(error, ERROR_ARGUMENT, "a page of results has an offset of 0 or more and a limit of 1 to %d",
                     SEARCH_LIMIT);
  buffer_init(&words, 0);
  if (query_build(search, &words, error) != 0) goto out;
  if (!(*out = arena_array(arena, (size_t)search->limit + 1, sizeof **out, error))) goto out;
  struct connection *reader = store_reader(store, error);
  if (!reader) goto out;
  connection_limit(reader, search->time_limit_ms);
  result = search_run(reader, search, words.data, arena, *out, n, more, error);
  connection_limit(reader, 0);
  result = store_reader_end(store, reader, result);
out:
  buffer_clear(&words);
  return result;
}
