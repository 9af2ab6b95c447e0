/* What a bucket says it has: pages, names, entities, and every way in which a page can be spoilt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/pull/bucket_listing.h"

#define HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>n</Name><Prefix>v1/</Prefix>"
#define TAIL "</ListBucketResult>"
#define FILE_ROW(KEY, TAG, SIZE) "<Contents><Key>" KEY "</Key><ETag>" TAG "</ETag><Size>" SIZE "</Size></Contents>"

static const char page[] = HEAD "<IsTruncated>true</IsTruncated>" FILE_ROW("v1/a/batch-0.jsonl.gz", "&quot;0af-2&quot;", "12")
    FILE_ROW("v1/x&amp;y&lt;", "\"ff\"", "0") "<NextContinuationToken>1/a+b=</NextContinuationToken><CommonPrefixes><Prefix>v1/f/</Prefix></CommonPrefixes>" TAIL;

static int add(struct bucket_listing *listing, const char *xml, struct error *error) {
  return bucket_listing_add(listing, xml, strlen(xml), "v1/", error);
}

static void page_is_read(void **state) {
  struct error error = ERROR_INIT;
  struct bucket_listing listing;
  (void)state;
  bucket_listing_init(&listing);
  assert_int_equal(add(&listing, page, &error), 0);
  assert_int_equal(listing.n, 2);
  assert_string_equal(listing.files[0].path, "a/batch-0.jsonl.gz");
  assert_string_equal(listing.files[0].tag, "0af-2");
  assert_int_equal(listing.files[0].size, 12);
  assert_false(listing.files[0].wanted);
  assert_string_equal(listing.files[1].path, "x&y<");
  assert_string_equal(listing.files[1].tag, "ff");
  assert_int_equal(listing.n_folders, 1);
  assert_string_equal(listing.folders[0], "f");
  assert_string_equal(listing.next, "1/a+b=");
  assert_int_equal(add(&listing, HEAD FILE_ROW("v1/b", "", "7") TAIL, &error), 0);
  assert_int_equal(listing.n, 3);
  assert_string_equal(listing.files[0].path, "a/batch-0.jsonl.gz");
  assert_string_equal(listing.files[2].path, "b");
  assert_string_equal(listing.files[2].tag, "");
  assert_string_equal(listing.next, "");
  bucket_listing_clear(&listing);
}

/* How many names a page has that is not refused. */
static size_t names(const char *xml) {
  struct error error = ERROR_INIT;
  struct bucket_listing listing;
  bucket_listing_init(&listing);
  assert_int_equal(add(&listing, xml, &error), 0);
  size_t n = listing.n;
  bucket_listing_clear(&listing);
  return n;
}

static void odd_names_are_passed_over(void **state) {
  char longest[2000];
  (void)state;
  assert_int_equal(names(HEAD FILE_ROW("v2/a", "", "1") TAIL), 0); /* not what was asked for */
  assert_int_equal(names(HEAD FILE_ROW("v1/", "", "1") TAIL), 0);  /* the prefix itself */
  assert_int_equal(names(HEAD FILE_ROW("v1/a\nb", "", "1") TAIL), 0);
  assert_int_equal(names(HEAD FILE_ROW("v1/&#65;", "", "1") TAIL), 0);
  assert_int_equal(names(HEAD FILE_ROW("v1/&am", "", "1") TAIL), 0);
  assert_int_equal(names(HEAD FILE_ROW("v1/<b>", "", "1") TAIL), 0);
  snprintf(longest, sizeof longest, HEAD "<Contents><Key>v1/%0*d</Key><Size>1</Size></Contents>" TAIL, 1500, 0);
  assert_int_equal(names(longest), 0);
  assert_int_equal(names(HEAD "<Contents></Contents>" TAIL), 0);
}

static void refused(const char *xml, enum error_code code, const char *words) {
  struct error error = ERROR_INIT;
  struct bucket_listing listing;
  bucket_listing_init(&listing);
  assert_int_equal(add(&listing, xml, &error), -1);
  assert_int_equal(error.code, code);
  if (!strstr(error.text, words)) fail_msg("'%s' does not say '%s'", error.text, words);
  bucket_listing_clear(&listing);
}

static void what_is_no_page_is_refused(void **state) {
  (void)state;
  refused("", ERROR_FORMAT, "no listing of a bucket");
  refused("<Error><Code>AccessDenied</Code></Error>", ERROR_FORMAT, "no listing of a bucket");
  refused(HEAD, ERROR_FORMAT, "only a part of one");
  refused(HEAD "<Contents><Key>v1/a</Key></Contents>" TAIL, ERROR_FORMAT, "no size of 'v1/a'");
  refused(HEAD FILE_ROW("v1/a", "", "-1") TAIL, ERROR_FORMAT, "no size of 'v1/a'");
  refused(HEAD FILE_ROW("v1/a", "", "99999999999999999999") TAIL, ERROR_FORMAT, "no size of 'v1/a'");
  refused(HEAD "<IsTruncated>true</IsTruncated>" TAIL, ERROR_FORMAT, "said to go on, and not how");
}

static void too_many_names_are_refused(void **state) {
  static const char row[] = FILE_ROW("v1/a", "", "1");
  const size_t n = 100001, begin = strlen(HEAD);
  char *xml = malloc(begin + n * strlen(row) + strlen(TAIL) + 1);
  (void)state;
  assert_non_null(xml);
  memcpy(xml, HEAD, begin);
  for (size_t i = 0; i < n; i++) memcpy(xml + begin + i * strlen(row), row, strlen(row));
  memcpy(xml + begin + n * strlen(row), TAIL, sizeof TAIL);
  refused(xml, ERROR_LIMIT, "more than 100000 names");
  free(xml);
}

/* Every cut and every changed byte: an answer of one kind or the other, and nothing outside of the page is read (the page ends where its
 * memory ends, for the sanitizers to see). */
static void any_spoilt_page_is_survived(void **state) {
  static const char changes[] = {'<', '>', '&', '\0', '"', '/'};
  struct error error = ERROR_INIT;
  size_t length = strlen(page), taken = 0;
  (void)state;
  for (size_t i = 0; i < length * (1 + sizeof changes); i++) {
    size_t at = i % length, kind = i / length, n = kind ? length : at;
    char *copy = malloc(n ? n : 1);
    struct bucket_listing listing;
    assert_non_null(copy);
    memcpy(copy, page, n);
    if (kind) copy[at] = changes[kind - 1];
    bucket_listing_init(&listing);
    if (bucket_listing_add(&listing, copy, n, "v1/", &error) == 0) taken++;
    assert_in_range(listing.n, 0, 2);
    bucket_listing_clear(&listing);
    free(copy);
  }
  assert_in_range(taken, 1, length * sizeof changes - 1); /* no cut page is one, some changed ones are */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(page_is_read),           cmocka_unit_test(odd_names_are_passed_over),   cmocka_unit_test(what_is_no_page_is_refused),
      cmocka_unit_test(too_many_names_are_refused), cmocka_unit_test(any_spoilt_page_is_survived),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
