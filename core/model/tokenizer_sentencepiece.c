/* tokenizer_sentencepiece.c: makes a tokenizer of a SentencePiece model file. Ids are SentencePiece's own: pieces that are user
 * defined are found in the normalized text first, what is between them is merged by scores. Does not know which folder it lies in. */
#include <string.h>

#include "core/base/utf8.h"
#include "core/model/added_list.h"
#include "core/model/scored_merges.h"
#include "core/model/sentencepiece.h"
#include "core/model/tokenizer_bpe.h"

/* Ids of added tokens may leave gaps, but a table must not be mostly gaps. */
#define ID_LIMIT(count) (4 * (int64_t)(count) + 1024)

#define SPACE "\xE2\x96\x81"

/* ---- what is served ----------------------------------------------------------------------------- */

static int check_kinds(const struct sentencepiece *m, struct error *error) {
  int bytes = 0;
  for (int32_t i = 0; i < m->count; i++) {
    const struct scored_piece *piece = &m->pieces[i];
    if (m->kinds[i] == SENTENCEPIECE_UNUSED)
      return error_set(error, ERROR_UNSUPPORTED, "piece %d is of the kind 'unused', which is not supported", i);
    if (m->kinds[i] == SENTENCEPIECE_NORMAL && piece->length > SCORED_PIECE_BYTES)
      return error_set(error, ERROR_LIMIT, "piece %d has %zu bytes, at most %d are supported", i, piece->length, SCORED_PIECE_BYTES);
    if (m->kinds[i] != SENTENCEPIECE_BYTE)
      continue;
    bytes++;
    if (decoder_fallback_byte(piece->text, piece->length) < 0)
      return error_set(error, ERROR_FORMAT, "piece %d is of the kind 'byte', but its text is not as '<0x41>'", i);
  }
  if (bytes != (m->byte_fallback ? 256 : 0))
    return error_set(error, ERROR_FORMAT, "it has %d pieces of bytes, and its byte_fallback, which is %s, needs %d", bytes,
                     m->byte_fallback ? "on" : "off", m->byte_fallback ? 256 : 0);
  return 0;
}

static int check_model(const struct sentencepiece *m, struct error *error) {
  static const char *const names[] = {[SENTENCEPIECE_UNIGRAM] = "Unigram", [SENTENCEPIECE_WORDS] = "Word"};
  if (m->model != SENTENCEPIECE_BPE && m->model != SENTENCEPIECE_CHARACTERS) {
    bool known = m->model == SENTENCEPIECE_UNIGRAM || m->model == SENTENCEPIECE_WORDS;
    return error_set(error, ERROR_UNSUPPORTED, "a SentencePiece model of the type %s is not supported; supported: BPE, Char",
                     known ? names[m->model] : "that this number stands for");
  }
  if (m->suffix)
    return error_set(error, ERROR_UNSUPPORTED, "treat_whitespace_as_suffix is not supported: the space in front of a word is a part of it here");
  if (m->charsmap_back.length > 0)
    return error_set(error, ERROR_UNSUPPORTED, "a denormalizer with a map of characters is not supported");
  return check_kinds(m, error);
}

/* SentencePiece merges characters that are no piece where their join is one; here a piece is made of pieces. Of the pieces
 * with such a character the shortest is never made, so that only those are looked at. */
static int check_characters(const struct sentencepiece *m, const struct bpe_table *table, struct error *error) {
  for (int32_t i = 0; i < m->count; i++) {
    const struct scored_piece *piece = &m->pieces[i];
    uint32_t point;
    if (!piece->merges || table->made[i])
      continue;
    for (size_t at = 0, n; at < piece->length; at += n) {
      n = (size_t)utf8_next(piece->text + at, piece->length - at, &point);
      if (bpe_table_find(table, piece->text + at, n) < 0)
        return error_set(error, ERROR_UNSUPPORTED, "piece %d has the character U+%04X, which is no piece; that is not supported", i,
                         (unsigned)point);
    }
  }
  return 0;
}

/* ---- pieces ------------------------------------------------------------------------------------- */

/* What a piece shows: its text with spaces, or the byte. */
static int show_piece(struct tokenizer *t, const struct scored_piece *piece, int kind, struct buffer *scratch,
                      struct error *error) {
  scratch->length = 0;
  if (kind == SENTENCEPIECE_BYTE)
    buffer_char(scratch, (char)decoder_fallback_byte(piece->text, piece->length));
  else
    decoder_piece(&t->decoder, piece->text, piece->length, scratch);
  if (buffer_check(scratch, error) != 0)
    return -1;
  return pieces_set(&t->pieces, piece->id, scratch->data, scratch->length, error);
}

/* `listed`: the settings say how it is cut out of texts. */
static int add_piece(struct tokenizer *t, const struct scored_piece *piece, int kind, bool listed, struct buffer *scratch,
                     struct error *error) {
  struct added_token token = {.id = piece->id};
  if (show_piece(t, piece, kind, scratch, error) != 0)
    return -1;
  switch (kind) {
    case SENTENCEPIECE_UNKNOWN:
    case SENTENCEPIECE_CONTROL:
      t->pieces.at[piece->id].special = token.special = true;
      return listed ? 0 : added_tokens_add(&t->added[0], token, piece->text, piece->length, error);
    case SENTENCEPIECE_USER_DEFINED:
      token.exact = true;
      return added_tokens_add(&t->added[1], token, piece->text, piece->length, error);
    default: return bpe_table_add(bpe_table_of(t->state), piece->id, piece->text, piece->length, error);
  }
}

/* Both are in the order of their ids. */
static int add_pieces(struct tokenizer *t, const struct sentencepiece *m, const struct added_list *added, struct error *error) {
  struct buffer scratch;
  size_t next = 0;
  int result = 0;
  buffer_init(&scratch, 0);
  for (int32_t i = 0; i < m->count && result == 0; i++) {
    while (next < added->count && added->at[next].token.id < i) next++;
    bool listed = next < added->count && added->at[next].token.id == i;
    result = add_piece(t, &m->pieces[i], m->kinds[i], listed, &scratch, error);
  }
  buffer_clear(&scratch);
  return result == 0 ? bpe_table_settle(bpe_table_of(t->state), error) : -1;
}

/* A token of the settings is cut out of the text as it comes, and takes an id over that has another piece. */
static int add_listed(struct tokenizer *t, const struct sentencepiece *m, const struct added_entry *entry, struct error *error) {
  int32_t id = entry->token.id;
  const struct scored_piece *piece = id < m->count ? &m->pieces[id] : NULL;
  bool same = piece && piece->length == entry->length && memcmp(piece->text, entry->text, entry->length) == 0;
  if (!same && pieces_set(&t->pieces, id, entry->text, entry->length, error) != 0)
    return -1;
  t->pieces.at[id].special = entry->token.special;
  return added_tokens_add(&t->added[0], entry->token, entry->text, entry->length, error);
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static int set_normalizer(struct tokenizer *t, const struct sentencepiece *m, const struct sentencepiece_settings *s,
                          struct error *error) {
  struct normalizer_rules rules = {.charsmap = m->charsmap.text, .charsmap_length = m->charsmap.length, .squeeze = m->squeeze,
                                   .prefix = s->prefix < 0 ? m->prefix : s->prefix > 0, .prefix_first = s->prefix_first,
                                   .escape = m->escape, .whole = &t->added[1]};
  t->normalizer = normalizer_of_rules(&rules, error);
  t->decoder.start.strip = rules.prefix || rules.squeeze;
  return t->normalizer ? 0 : -1;
}

static int fill(struct tokenizer *t, const struct sentencepiece *m, const struct sentencepiece_settings *s, struct error *error) {
  t->state = bpe_new(&t->pieces, (size_t)m->count, 0, error);
  if (!t->state)
    return -1;
  t->kind = &bpe_kind;
  t->decoder = (struct decoder){.n_replaces = 1, .replaces = {{.from = SPACE, .from_length = sizeof SPACE - 1, .to = " ", .to_length = 1}}};
  if (add_pieces(t, m, s->added, error) != 0)
    return -1;
  for (size_t i = 0; i < s->added->count; i++)
    if (add_listed(t, m, &s->added->at[i], error) != 0)
      return -1;
  struct bpe_table *table = bpe_table_of(t->state);
  if (m->model == SENTENCEPIECE_BPE &&
      (scored_merges_add(table, m->pieces, m->count, error) != 0 || check_characters(m, table, error) != 0))
    return -1;
  bpe_set_options(t->state, (struct bpe_options){.byte_fallback = m->byte_fallback, .fuse_unknown = true, .unknown = m->unknown});
  t->bos = sentencepiece_control(m, m->bos);
  t->eos = sentencepiece_control(m, m->eos);
  return set_normalizer(t, m, s, error);
}

/* Gives the tokens of the settings the ids of the pieces they name, and counts all ids. */
static int settle_ids(const struct sentencepiece *m, struct added_list *added, int32_t *count, struct error *error) {
  for (int32_t i = 0; i < m->count && added->count > 0; i++)
    added_list_offer(added, i, m->pieces[i].text, m->pieces[i].length);
  if (added_list_settle(added, error) != 0)
    return -1;
  int32_t last = added_list_last(added);
  int64_t limit = ID_LIMIT((int64_t)m->count + (int64_t)added->count);
  if (last >= limit)
    return error_set(error, ERROR_FORMAT, "the added token '%.64s' has id %d, outside 0 to %lld, the most this many pieces allow",
                     added->at[added->count - 1].text, last, (long long)limit - 1);
  *count = last >= m->count ? last + 1 : m->count;
  return 0;
}

/* Llama 3's file of the same name: lines of a text in base64 and a number. */
static bool is_tiktoken(const char *data, size_t size) {
  size_t at = 0, digits;
  while (at < size && at < 64 && data[at] && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", data[at])) at++;
  for (digits = at + 1; digits < size && data[digits] >= '0' && data[digits] <= '9';) digits++;
  return at >= 4 && digits < size && digits > at + 1 && data[at] == ' ' && data[digits] == '\n';
}

struct tokenizer *tokenizer_parse_sentencepiece(const char *data, size_t size, const struct sentencepiece_settings *settings,
                                                struct error *error) {
  struct sentencepiece model;
  struct tokenizer *t = NULL;
  int32_t count = 0;
  if (is_tiktoken(data, size))
    return error_set(error, ERROR_UNSUPPORTED, "a vocabulary in tiktoken's format is not supported; supported: tokenizer.json, or a "
                     "SentencePiece model"), NULL;
  if (sentencepiece_read(data, size, &model, error) != 0)
    return NULL;
  for (int32_t i = 0; i < model.count; i++)
    model.pieces[i].merges = model.kinds[i] == SENTENCEPIECE_NORMAL;
  if (check_model(&model, error) == 0 && settle_ids(&model, settings->added, &count, error) == 0)
    t = tokenizer_new(count, error);
  if (t && fill(t, &model, settings, error) != 0) {
    tokenizer_free(t);
    t = NULL;
  }
  sentencepiece_clear(&model);
  return t;
}
