/* The porch's judgements without sockets: heads, targets, hosts, origins, keys, and the words of the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/access_log.h"
#include "server/guard.h"
#include "server/keys.h"
#include "server/origin.h"
#include "core/base/sha256.h"

static const struct guard_limits limits = {32768, 8};

/* ---- heads -------------------------------------------------------------------------------------------- */

/* Judges a head of Host and up to three further fields, NULL-ended. */
static int judge(const char *method, const char *version, struct guard_body *body,
                 struct guard_refusal *refusal, const char *const *fields) {
  struct api_pair pairs[4] = {{"Host", "localhost"}};
  size_t n = 1;
  for (; fields && fields[0]; fields += 2) pairs[n++] = (struct api_pair){fields[0], fields[1]};
  struct guard_head head = {method, version, "/", pairs, n, 100};
  memset(refusal, 0, sizeof *refusal);
  return guard_check(&head, &limits, body, refusal);
}

static void good_heads(void **state) {
  (void)state;
  struct guard_body body;
  struct guard_refusal refusal;
  assert_int_equal(judge("GET", "HTTP/1.1", &body, &refusal, NULL), 0);
  assert_false(body.chunked);
  assert_int_equal(body.length, 0);
  const char *length[] = {"Content-Length", "12", "Expect", "100-continue", NULL};
  assert_int_equal(judge("POST", "HTTP/1.1", &body, &refusal, length), 0);
  assert_int_equal(body.length, 12);
  assert_true(body.waits);
  const char *chunked[] = {"transfer-encoding", "CHUNKED", NULL};
  assert_int_equal(judge("POST", "HTTP/1.1", &body, &refusal, chunked), 0);
  assert_true(body.chunked);
}

static void bad_heads(void **state) {
  (void)state;
  struct {
    const char *method, *version, *fields[5];
    int status;
  } cases[] = {
      {"get", "HTTP/1.1", {NULL}, 400},
      {"", "HTTP/1.1", {NULL}, 400},
      {"ABCDEFGHIJKLMNOPQ", "HTTP/1.1", {NULL}, 400},
      {"POST", "HTTP/1.1", {"Content-Length", "3", "Content-Length", "3"}, 400},
      {"POST", "HTTP/1.1", {"Content-Length", "3", "content-length", "4"}, 400},
      {"POST", "HTTP/1.1", {"Content-Length", "3", "Transfer-Encoding", "chunked"}, 400},
      {"POST", "HTTP/1.1", {"Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked"}, 400},
      {"POST", "HTTP/1.0", {"Transfer-Encoding", "chunked"}, 400},
      {"POST", "HTTP/1.1", {"Transfer-Encoding", "gzip, chunked"}, 501},
      {"POST", "HTTP/1.1", {"Transfer-Encoding", "chunked "}, 501},
      {"POST", "HTTP/1.1", {"Transfer-Encoding", ""}, 501},
      {"POST", "HTTP/1.1", {"Content-Length", ""}, 400},
      {"POST", "HTTP/1.1", {"Content-Length", "+3"}, 400},
      {"POST", "HTTP/1.1", {"Content-Length", "3 "}, 400},
      {"POST", "HTTP/1.1", {"Content-Length", "9999999999999999999"}, 400},
      {"POST", "HTTP/1.1", {"Content-Encoding", "br"}, 415},
      {"GET", "HTTP/1.1", {"Host", "localhost"}, 400},
      {"GET", "HTTP/1.1", {"X A", "b"}, 400},
      {"GET", "HTTP/1.1", {"X\xc3\xa9", "b"}, 400},
      {"GET", "HTTP/1.1", {"", "b"}, 400},
      {"GET", "HTTP/1.1", {"X", "a\rb"}, 400},
      {"GET", "HTTP/1.1", {"X", "a\x7f"}, 400},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct guard_body body;
    struct guard_refusal refusal;
    if (judge(cases[i].method, cases[i].version, &body, &refusal, cases[i].fields) != -1)
      fail_msg("case %zu passed", i);
    if (refusal.status != cases[i].status) fail_msg("case %zu: %d", i, refusal.status);
    assert_true(*refusal.text && *refusal.word);
  }
}

static void sizes_of_heads(void **state) {
  (void)state;
  struct api_pair pairs[9] = {{"Host", "localhost"}};
  for (int i = 1; i < 9; i++) pairs[i] = (struct api_pair){"X", ""};
  struct guard_body body;
  struct guard_refusal refusal = {0};
  struct guard_head head = {"GET", "HTTP/1.1", "/", pairs, 8, 32768};
  assert_int_equal(guard_check(&head, &limits, &body, &refusal), 0);
  head.n_headers = 9;
  assert_int_equal(guard_check(&head, &limits, &body, &refusal), -1);
  assert_int_equal(refusal.status, 431);
  head.n_headers = 8;
  head.bytes++;
  memset(&refusal, 0, sizeof refusal);
  assert_int_equal(guard_check(&head, &limits, &body, &refusal), -1);
  assert_int_equal(refusal.status, 431);
  head.bytes--;
  head.n_headers = 0; /* no Host */
  memset(&refusal, 0, sizeof refusal);
  assert_int_equal(guard_check(&head, &limits, &body, &refusal), -1);
  assert_int_equal(refusal.status, 400);
}

/* What the library's parser leaves of "GET / HTTP/1.1<end>A: b<end>C:d<end><end>", from the first <end>. */
static bool seamless(const char *bytes, size_t length, size_t a, size_t b, size_t c, size_t d) {
  struct api_pair pairs[] = {{bytes + a, bytes + b}, {bytes + c, bytes + d}};
  return guard_is_seamless(bytes, bytes + length, pairs, 2);
}

static void seams(void **state) {
  (void)state;
  assert_true(seamless("\0\0A\0 b\0\0C\0d\0\0\0\0", 15, 2, 5, 8, 10));
  assert_true(seamless("\0A\0 b\0C\0d\0\0", 11, 1, 4, 6, 8));          /* bare LF */
  assert_false(seamless("\0\0A\0 b\0x\0\0C\0d\0\0\0\0", 17, 2, 5, 10, 12)); /* NUL inside a value */
  assert_false(seamless("\0\0A\0 b\0\0\0C\0d\0\0\0\0", 16, 2, 5, 9, 11));   /* NUL behind a value */
  assert_false(seamless("\0\0A\0 b\0\0C\0d\0e\0\0\0\0", 17, 2, 5, 8, 10));  /* in the last one */
  assert_false(seamless("\0\0A\0 b\0\0 f\0\0C\0d\0\0\0\0", 19, 2, 5, 12, 14)); /* a folded line */
  assert_false(seamless("\0\0A\0 b\0\0C\0d\0", 12, 2, 5, 8, 10));            /* no empty line */
}

/* ---- targets ------------------------------------------------------------------------------------------ */

static int split(const char *target, struct arena *arena, struct guard_target *out) {
  struct guard_refusal refusal = {0};
  int rc = guard_split(target, arena, out, &refusal);
  if (rc) assert_int_equal(refusal.status, 400);
  return rc;
}

static void good_targets(void **state) {
  (void)state;
  struct arena arena;
  struct guard_target t;
  arena_init(&arena, 0);
  assert_int_equal(split("/a%20b/%C3%A9?x=1+2&y=%26%3d&z&=w&x=3&&", &arena, &t), 0);
  assert_string_equal(t.path, "/a b/\xc3\xa9");
  assert_int_equal(t.n_query, 5);
  assert_string_equal(t.query[0].value, "1 2");
  assert_string_equal(t.query[1].value, "&=");
  assert_string_equal(t.query[2].name, "z");
  assert_string_equal(t.query[2].value, "");
  assert_string_equal(t.query[3].name, "");
  assert_string_equal(t.query[4].value, "3");
  assert_int_equal(split("/a+b", &arena, &t), 0);
  assert_string_equal(t.path, "/a+b"); /* a plus is a blank in queries only */
  assert_int_equal(split("/.../..a/a..", &arena, &t), 0);
  assert_int_equal(split("/?a=b=c", &arena, &t), 0);
  assert_string_equal(t.query[0].value, "b=c");
  arena_clear(&arena);
}

static void bad_targets(void **state) {
  (void)state;
  static const char *const targets[] = {
      "",       "*",     "a",       "http://x/",  "/%",      "/%4",    "/%zz",  "/%00",    "/a%0a",
      "/%7f",   "/%ff",  "/%c0%af", "/%ed%a0%80", "/#",      "/..",    "/.",    "/a/../b", "/%2e%2E/",
      "/a/%2e", "/?a=%", "/?%00=b", "/?a=%1f",    "/?a=%ff", "/?a%=b", "/\x01", "/?a#b"};
  struct arena arena;
  struct guard_target t;
  arena_init(&arena, 0);
  for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
    if (!split(targets[i], &arena, &t)) fail_msg("'%s' passed", targets[i]);
  char many[600] = "/?";
  for (int i = 0; i < 129; i++) strcat(many, "a=&");
  assert_int_equal(split(many, &arena, &t), -1);
  arena_clear(&arena);
}

static void escapes_end_inside(void **state) {
  (void)state;
  /* Exactly at the end of an allocation of its own, so that a sanitizer sees a byte too many. */
  static const char *const cut[] = {"/%", "/%a", "/?x=%", "/?x=%a"};
  struct arena arena;
  struct guard_target t;
  arena_init(&arena, 0);
  for (size_t i = 0; i < 4; i++) {
    char *own = strdup(cut[i]);
    assert_int_equal(split(own, &arena, &t), -1);
    free(own);
  }
  arena_clear(&arena);
}

static void request_ids_and_gzip(void **state) {
  (void)state;
  char most[66];
  memset(most, 'a', 65);
  most[65] = '\0';
  assert_false(guard_is_request_id(most));
  most[64] = '\0';
  assert_true(guard_is_request_id(most));
  assert_true(guard_is_request_id("A-z_0.9"));
  assert_false(guard_is_request_id(""));
  assert_false(guard_is_request_id("a b"));
  assert_false(guard_is_request_id("\xc3\xa9"));
  assert_true(guard_accepts_gzip("gzip"));
  assert_true(guard_accepts_gzip("br;q=1, GZIP ; q=0.1"));
  assert_false(guard_accepts_gzip("gzip;q=0"));
  assert_false(guard_accepts_gzip("gzip; q=0.000"));
  assert_false(guard_accepts_gzip("gzipped, br"));
  assert_false(guard_accepts_gzip(""));
  assert_false(guard_accepts_gzip(",,;,"));
  assert_false(guard_accepts_gzip(NULL));
}

/* ---- who may ask -------------------------------------------------------------------------------------- */

static void hosts(void **state) {
  (void)state;
  const char *const names[] = {"steer.example"};
  struct origin_list list = {names, 1}, none = {NULL, 0};
  assert_int_equal(origin_check_host("steer.example:443", list), ORIGIN_HOST_GOOD);
  assert_int_equal(origin_check_host("STEER.example.", list), ORIGIN_HOST_GOOD);
  assert_int_equal(origin_check_host("steer.example", none), ORIGIN_HOST_UNKNOWN);
  assert_int_equal(origin_check_host("a.steer.example", list), ORIGIN_HOST_UNKNOWN);
  assert_int_equal(origin_check_host("localhost", none), ORIGIN_HOST_GOOD);
  assert_int_equal(origin_check_host("[::1]:1", none), ORIGIN_HOST_GOOD);
  assert_int_equal(origin_check_host("8.8.8.8", none), ORIGIN_HOST_GOOD);
  assert_int_equal(origin_check_host("127.1", none), ORIGIN_HOST_UNKNOWN);
  assert_int_equal(origin_check_host("::1", none), ORIGIN_HOST_MALFORMED);
  assert_int_equal(origin_check_host("", none), ORIGIN_HOST_MALFORMED);
  assert_int_equal(origin_check_host("localhost:65536", none), ORIGIN_HOST_MALFORMED);
}

static void origins(void **state) {
  (void)state;
  const char *const names[] = {"https://notebook.example"};
  struct origin_list list = {names, 1}, none = {NULL, 0};
  assert_true(origin_allowed("https://notebook.example", "localhost", list));
  assert_false(origin_allowed("https://notebook.example", "localhost", none));
  assert_false(origin_allowed("https://notebook.example.evil", "localhost", list));
  assert_true(origin_allowed("http://localhost:3000", "10.0.0.1", none));
  assert_true(origin_allowed("http://10.0.0.1:8080", "10.0.0.1:8080", none)); /* the same origin */
  assert_false(origin_allowed("http://10.0.0.1:8081", "10.0.0.1:8080", none));
  assert_true(origin_allowed("https://steer.example", "steer.example", none));
  assert_false(origin_allowed("http://steer.example", "steer.example:443", none));
  assert_false(origin_allowed("null", "localhost", none));
  assert_false(origin_allowed("http://localhost@evil", "localhost", none));
  assert_true(origin_is_loopback("127.255.0.1") && origin_is_loopback("::1") &&
              !origin_is_loopback("128.0.0.1"));
}

static void hex(const unsigned char *bytes, char out[65]) {
  for (int i = 0; i < 32; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

/* The examples of FIPS 180-4 (NIST's example values), and lengths around the padding's edge, whose values
 * were made with coreutils' sha256sum. */
static void digests(void **state) {
  (void)state;
  struct {
    size_t a; /* so many 'a' */
    const char *text, *digest;
  } cases[] = {
      {0, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {0, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {0, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {55, NULL, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
      {56, NULL, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
      {63, NULL, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
      {64, NULL, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
      {1000000, NULL, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  char *many = malloc(1000000);
  assert_non_null(many);
  memset(many, 'a', 1000000);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    unsigned char out[32];
    char text[65];
    sha256(cases[i].text ? cases[i].text : many, cases[i].text ? strlen(cases[i].text) : cases[i].a, out);
    hex(out, text);
    assert_string_equal(text, cases[i].digest);
  }
  free(many);
}

static void keys(void **state) {
  (void)state;
  char path[] = "/tmp/steerd-test-keys-XXXXXX";
  int fd = mkstemp(path);
  const char text[] = "# "
                      "ours\n\r\nplain-key-0123456789\nsha256:"
                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";
  assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
  const char *items[] = {path, "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"};
  struct keys *set = keys_open(items, 1, NULL);
  assert_non_null(set);
  assert_int_equal(keys_count(set), 2);
  assert_true(keys_match(set, "plain-key-0123456789") && keys_match(set, "abc"));
  assert_false(keys_match(set, "plain-key-012345678") || keys_match(set, "") || keys_match(set, "# ours"));
  keys_close(set);
  set = keys_open(items, 2, NULL);
  assert_true(keys_match(set, "")); /* the digest of nothing was asked for */
  keys_close(set);
  unlink(path);
  set = keys_open(NULL, 0, NULL);
  assert_int_equal(keys_count(set), 0);
  assert_false(keys_match(set, ""));
  keys_close(set);
}

static void bad_keys(void **state) {
  (void)state;
  static const char *const texts[] = {
      "", "# only\n", "too-short\n", "sha256:12\n",
      "sha256:zz7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    char path[] = "/tmp/steerd-test-keys-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, texts[i], strlen(texts[i])) == (ssize_t)strlen(texts[i]));
    close(fd);
    const char *item = path;
    struct error error = ERROR_INIT;
    assert_null(keys_open(&item, 1, &error));
    assert_int_equal(error.code, ERROR_ARGUMENT);
    assert_null(strstr(error.text, "too-short"));
    unlink(path);
  }
  const char *missing = "/nonexistent/keys";
  struct error error = ERROR_INIT;
  assert_null(keys_open(&missing, 1, &error));
  assert_int_equal(error.code, ERROR_NOT_FOUND);
}

/* ---- log ---------------------------------------------------------------------------------------------- */

static void quoted(void **state) {
  (void)state;
  struct {
    const char *text, *want;
  } cases[] = {{"a\"\\b", "\"a\\\"\\\\b\""},          {"\x1b[31m\n", "\"\\u001b[31m\\u000a\""},
               {"\xe2\x80\xae", "\"\\u202e\""},       {"\xc3\xa9", "\"\xc3\xa9\""},
               {"\xff\xc3", "\"\\ufffd\\ufffd\""},    {"\xc2\x85\x7f", "\"\\u0085\\u007f\""},
               {"0123456789ABCDEF", "\"0123456789\""}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct buffer out;
    buffer_init(&out, 0);
    access_log_quote(&out, cases[i].text, 10);
    assert_string_equal(out.data, cases[i].want);
    buffer_clear(&out);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(good_heads),   cmocka_unit_test(bad_heads),          cmocka_unit_test(sizes_of_heads),
      cmocka_unit_test(seams),        cmocka_unit_test(good_targets),       cmocka_unit_test(bad_targets),
      cmocka_unit_test(escapes_end_inside), cmocka_unit_test(request_ids_and_gzip),
      cmocka_unit_test(hosts),        cmocka_unit_test(origins),            cmocka_unit_test(digests),
      cmocka_unit_test(keys),         cmocka_unit_test(bad_keys),           cmocka_unit_test(quoted)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
