/* fuzz_tokenizer.c: the first byte picks what the others are: a tokenizer.json, the parts of one around a fixed
 * vocabulary, merges.txt under a fixed vocabulary, a tokenizer.bin, a SentencePiece model, settings beside a fixed one,
 * or a text to encode and decode with one of several tokenizers. Whatever loads must encode, and where nothing is changed on the way, ids must give the text
 * back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/detokenizer.h"
#include "core/model/tokenizer_private.h"

static const char vocab[] =
    "{\"a\":0,\"b\":1,\"c\":2,\"\xC4\xA0\":3,\"ab\":4,\"aa\":5,\"aaaa\":6,\"abc\":7,\"bc\":8,"
    "\"<|endoftext|>\":9,\"!\":30}";
static const char text_probe[] = "aaab ab  <|endoftext|>abc!\n aa";

/* A tokenizer with all 256 bytes, a few merges and tokens that overlap and swallow spaces. */
static struct tokenizer *text_tokenizer(void) {
  static struct tokenizer *made;
  if (made)
    return made;
  struct buffer json;
  buffer_init(&json, 0);
  buffer_text(&json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
  for (int i = 0, id = 0; i < 324; i++) {
    bool itself = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || (i >= 174 && i <= 255);
    if (itself || i >= 256)
      buffer_printf(&json, "\"\\u%04x\":%d,", (unsigned)i, id++);
  }
  buffer_text(&json,
              "\"aa\":256,\"aaaa\":257,\"\\u0120\\u0120\":258,\"th\":259,\"the\":260},"
              "\"merges\":[\"a a\",\"aa aa\",\"\\u0120 \\u0120\",\"t h\",\"th e\"]},"
              "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"added_tokens\":["
              "{\"id\":300,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
              "{\"id\":301,\"content\":\"<s><s>\",\"normalized\":false},"
              "{\"id\":302,\"content\":\"  \",\"normalized\":true}]}");
  made = tokenizer_parse_json(json.data, json.length, NULL);
  if (!made)
    abort();
  made->bos = 300;
  if (tokenizer_finish(made, NULL) != 0)
    abort();
  buffer_clear(&json);
  return made;
}

/* Nothing of the pieces above swallows white space, so the bytes of the ids from `first` on are the text. */
static void check_round_trip(const struct tokenizer *t, const int32_t *ids, size_t first, size_t count,
                             const char *text, size_t size) {
  struct detokenizer d;
  detokenizer_init(&d, t);
  detokenizer_begin(&d);
  for (size_t i = first; i < count; i++)
    if (detokenizer_push(&d, ids[i]) != 0)
      abort();
  if (d.waiting_count != 0 || d.text.length != size)
    abort();
  if (size && memcmp(d.text.data, text, size) != 0)
    abort();
  detokenizer_clear(&d);
}

/* SentencePiece-style: characters, byte fallback, a space that is put in front; everything comes back. */
static struct tokenizer *piece_tokenizer(void) {
  static struct tokenizer *made;
  if (made)
    return made;
  struct buffer json;
  buffer_init(&json, 0);
  buffer_text(&json, "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"<u>\",\"byte_fallback\":true,\"fuse_unk\":true,\"vocab\":{");
  for (int i = 0; i < 256; i++)
    buffer_printf(&json, "\"<0x%02X>\":%d,", (unsigned)i, i);
  buffer_text(&json, "\"a\":256,\"\u2581\":257,\"\u2581a\":258,\"aa\":259,\"\u2581aa\":260,\"b\":261,\"<u>\":262},"
                     "\"merges\":[[\"a\",\"a\"],[\"\u2581\",\"aa\"],[\"\u2581\",\"a\"]]},"
                     "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},"
                     "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},"
                     "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},"
                     "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
                     "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}");
  made = tokenizer_parse_json(json.data, json.length, NULL);
  if (!made || tokenizer_finish(made, NULL) != 0)
    abort();
  buffer_clear(&json);
  return made;
}

/* Every step that changes or cuts a text: nothing comes back, but nothing may break. */
static struct tokenizer *step_tokenizer(void) {
  static struct tokenizer *made;
  static const char json[] =
      "{\"model\":{\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]},"
      "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"},{\"type\":\"NFD\"},"
      "{\"type\":\"Strip\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(?i:s+)|\\\\d\"},\"content\":\"a \"}]},"
      "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Whitespace\"},"
      "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"},"
      "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|[^\\\\s\\\\p{L}]?\\\\p{L}+\"},"
      "\"behavior\":\"MergedWithNext\",\"invert\":true},{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}]},"
      "\"added_tokens\":[{\"id\":4,\"content\":\"S\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true},"
      "{\"id\":5,\"content\":\" \",\"normalized\":false}]}";
  if (!made)
    made = tokenizer_parse_json(json, sizeof json - 1, NULL);
  static int finished;
  if (!made || (!finished && tokenizer_finish(made, NULL) != 0))
    abort();
  finished = 1;
  return made;
}

static bool begins_with_bos(const char *text, size_t size) {
  return size >= 3 && memcmp(text, "<s>", 3) == 0;
}

static void fuzz_text(const char *text, size_t size, int flags) {
  const struct tokenizer *t = text_tokenizer();
  int32_t *ids;
  size_t count;
  if (tokenizer_encode(t, text, size, flags, &ids, &count, NULL) != 0)
    return;
  check_round_trip(t, ids, count && (flags & TOKENIZE_BOS) && !begins_with_bos(text, size) ? 1 : 0, count,
                   text, size);
  free(ids);
  /* U+2581 comes back as a space and is left out. */
  if (!memmem(text, size, "\xE2\x96\x81", 3) && tokenizer_encode(piece_tokenizer(), text, size, 0, &ids, &count, NULL) == 0) {
    check_round_trip(piece_tokenizer(), ids, 0, count, text, size);
    free(ids);
  }
  if (tokenizer_encode(step_tokenizer(), text, size, 0, &ids, &count, NULL) == 0)
    free(ids);
}

static void fuzz_loaded(struct tokenizer *t) {
  if (t && tokenizer_finish(t, NULL) == 0) {
    int32_t *ids;
    size_t count;
    for (int flags = 0; flags < 4; flags++)
      if (tokenizer_encode(t, text_probe, sizeof text_probe - 1, flags, &ids, &count, NULL) == 0) {
        for (size_t i = 0; i < count; i++)
          if (ids[i] < 0 || ids[i] >= tokenizer_size(t))
            abort();
        free(ids);
      }
  }
  tokenizer_free(t);
}

/* The parts of a tokenizer.json in front of a model that is always the same, so that the fuzzer reaches what lies
 * behind it: `"normalizer": ..., "pre_tokenizer": ...,` and so on. */
static void fuzz_parts(const char *text, size_t size) {
  struct buffer json;
  buffer_init(&json, 0);
  buffer_text(&json, "{");
  buffer_append(&json, text, size);
  buffer_text(&json, ",\"model\":{\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u2581\":3},\"merges\":[\"a b\"]}}");
  fuzz_loaded(tokenizer_parse_json(json.data, json.length, NULL));
  buffer_clear(&json);
}

/* "<u>" "<s>" U+2581 "a" "aa" by BPE, with "b" defined by the user. */
static const char model[] = "\012\014\012\003<u>\025\0\0\0\0\030\002\012\014\012\003<s>\025\0\0\0\0\030\003\012\012\012\003\342\226\201\025\0\0\200\277"
                            "\012\010\012\001a\025\0\0\200\277\012\011\012\002aa\025\0\0\200\277\012\012\012\001b\025\0\0\0\0\030\004\022\002\030\002";

static void fuzz_model(const char *data, size_t size, const struct json_node *config) {
  struct added_list added;
  struct sentencepiece_settings settings = {.added = &added, .prefix = -1, .prefix_first = size % 2};
  if (added_list_read(&added, config, config, config, NULL) == 0)
    fuzz_loaded(tokenizer_parse_sentencepiece(data, size, &settings, NULL));
  added_list_clear(&added);
}

static void fuzz_settings(const char *text, size_t size) {
  struct json_node *config = json_parse(text, size, 8, NULL);
  if (config)
    fuzz_model(model, sizeof model - 1, config);
  json_free(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  const char *text = (const char *)data + 1;
  size--;
  switch (data[0] % 7) {
    case 0: fuzz_loaded(tokenizer_parse_json(text, size, NULL)); break;
    case 1: fuzz_loaded(tokenizer_parse_vocabulary(vocab, sizeof vocab - 1, text, size, data[0] & 8, &(struct added_list){0}, NULL)); break;
    case 2: fuzz_parts(text, size); break;
    case 3: fuzz_loaded(tokenizer_parse_llama2c(text, size, NULL)); break;
    case 5: fuzz_model(text, size, NULL); break;
    case 6: fuzz_settings(text, size); break;
    default: fuzz_text(text, size, data[0] / 7 % 4);
  }
  return 0;
}
