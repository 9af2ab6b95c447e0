/* tokens.c: texts and token ids at the front door. */
#include <stdlib.h>
#include <string.h>

#include "core/lab/lab_int.h"
#include "core/model/detokenizer.h"

/* Gives a text error the field it belongs to. */
static int with_field(struct error *error, const struct error *inner, const char *field) {
  return error_set_field(error, inner->code, field, "%s: %s", field, inner->text);
}

int lab_encode(const struct model *model, const char *text, size_t length, bool bos, int64_t room, const char *field,
               int32_t **ids, size_t *count, struct error *error) {
  struct error inner = ERROR_INIT;
  bool has_bos = tokenizer_bos(model->tokenizer) >= 0;
  if (tokenizer_encode(model->tokenizer, text, length, bos && has_bos ? TOKENIZE_BOS : 0, ids, count, &inner) != 0)
    return with_field(error, &inner, field);
  int64_t most = model->arch.n_ctx - room;
  if (*count == 0)
    error_set_field(&inner, ERROR_ARGUMENT, field, "it has no tokens, at least 1 is needed");
  else if ((int64_t)*count > most && room)
    error_set_field(&inner, ERROR_LIMIT, field,
                    "it has %zu tokens, the model's context of %lld leaves no room to generate; shorten it to %lld",
                    *count, (long long)model->arch.n_ctx, (long long)most);
  else if ((int64_t)*count > most)
    error_set_field(&inner, ERROR_LIMIT, field, "it has %zu tokens, the model's context is %lld", *count,
                    (long long)model->arch.n_ctx);
  if (!inner.code) return 0;
  free(*ids);
  *ids = NULL;
  return with_field(error, &inner, field);
}

char *lab_tokens_text(const struct tokenizer *tokenizer, const int32_t *ids, size_t n, struct arena *arena, struct error *error) {
  struct detokenizer d;
  int failed = 0;
  detokenizer_init(&d, tokenizer);
  for (size_t i = 0; !failed && i < n; i++) failed = detokenizer_push(&d, ids[i]);
  detokenizer_finish(&d);
  char *text = NULL;
  if (failed || buffer_check(&d.text, error) != 0)
    error_memory(error, d.text.length);
  else
    text = arena_text(arena, d.text.data ? d.text.data : "", d.text.length, error);
  detokenizer_clear(&d);
  return text;
}

char *lab_token_text(const struct tokenizer *tokenizer, int32_t id, struct arena *arena, struct error *error) {
  return lab_tokens_text(tokenizer, &id, 1, arena, error);
}

static bool is_whole(const char *text) { return !strstr(text, "\xEF\xBF\xBD"); }

/* How many tokens from the first on are one whole text; 1, whatever that shows, where none are. No character has more than four
 * bytes, and one that is not complete after so many tokens never is. */
static int find_run(const struct tokenizer *tokenizer, const int32_t *ids, size_t most, struct arena *arena, char **text, size_t *n,
                    struct error *error) {
  enum { RUN_MOST = 8 };
  *n = 1;
  if (!(*text = lab_tokens_text(tokenizer, ids, 1, arena, error))) return -1;
  for (size_t i = 2; !is_whole(*text) && i <= RUN_MOST && i <= most; i++) {
    char *longer = lab_tokens_text(tokenizer, ids, i, arena, error);
    if (!longer) return -1;
    if (!is_whole(longer)) continue;
    *text = longer;
    *n = i;
  }
  return 0;
}

int lab_token_texts(const struct tokenizer *tokenizer, const int32_t *ids, size_t n, struct arena *arena, const char *const **texts,
                    const bool **continued, struct error *error) {
  const char **shown = arena_array(arena, n, sizeof *shown, error);
  bool *behind = arena_array(arena, n, sizeof *behind, error);
  if (!shown || !behind) return -1;
  for (size_t i = 0, run; i < n; i += run) {
    char *text;
    if (find_run(tokenizer, ids + i, n - i, arena, &text, &run, error) != 0) return -1;
    for (size_t k = 0; k < run; k++) {
      shown[i + k] = text;
      behind[i + k] = k > 0;
    }
  }
  *texts = shown;
  *continued = behind;
  return 0;
}

static int fill(const struct model *model, const int32_t *ids, size_t count, struct arena *arena,
                struct lab_tokens *out, struct error *error) {
  const struct tokenizer *tokenizer = model->tokenizer;
  out->count = count;
  out->ids = arena_array(arena, count, sizeof *out->ids, error);
  out->texts = arena_array(arena, count, sizeof *out->texts, error);
  out->special = arena_array(arena, count, sizeof *out->special, error);
  if (!out->ids || !out->texts || !out->special) return -1;
  for (size_t i = 0; i < count; i++) {
    out->ids[i] = ids[i];
    out->special[i] = tokenizer_is_special(tokenizer, ids[i]);
    out->texts[i] = lab_token_text(tokenizer, ids[i], arena, error);
    if (!out->texts[i]) return -1;
  }
  out->bos = count > 0 && ids[0] == tokenizer_bos(tokenizer);
  return 0;
}

int lab_tokenize(const struct lab *lab, const struct lab_model_info *info, const char *text, size_t length,
                 enum lab_bos bos, struct arena *arena, struct lab_tokens *out, struct error *error) {
  const struct model *model = lab_model_of(lab, info)->model;
  bool with_bos = bos == LAB_BOS_YES || (bos == LAB_BOS_DEFAULT && tokenizer_prepends_bos(model->tokenizer));
  int32_t *ids = NULL;
  size_t count = 0;
  struct error inner = ERROR_INIT;
  int flags = with_bos && tokenizer_bos(model->tokenizer) >= 0 ? TOKENIZE_BOS : 0;
  if (tokenizer_encode(model->tokenizer, text, length, flags, &ids, &count, &inner) != 0)
    return with_field(error, &inner, "text");
  int failed = fill(model, ids, count, arena, out, error);
  free(ids);
  return failed;
}
