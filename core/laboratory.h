/* laboratory.h: the second page of the front door: runs with taps and edits, and what is made of them.
 *
 * The rules of core.h hold: plain structs in and out, jobs that wake their asker, errors for clients. Here `field` in
 * errors is spelled as in a request, with `prefix` in front ("edits[2].heads"). Every verb is bounded by
 * LABORATORY_MAX_ROWS rows of computation, and ends within one step when its job is cancelled or freed. */
#ifndef STEERD_CORE_LABORATORY_H
#define STEERD_CORE_LABORATORY_H

#include "core/core.h"

/* Sums over all runs of a request: token positions computed; bytes of activations kept for the reply, and of edits. */
#define LABORATORY_MAX_ROWS ((int64_t)1 << 20)
#define LABORATORY_MAX_BYTES ((int64_t)2 << 30)

/* ---- what is run ------------------------------------------------------------------------------------ */

/* A text, or tokens as they are when `ids` is there. */
struct lab_input {
  const char *text; /* valid UTF-8 */
  size_t length;
  const int64_t *ids;
  size_t n_ids;
  const char *field; /* what it is called in errors; NULL: as each verb says below */
};

/* ---- edits ------------------------------------------------------------------------------------------ */

/* Where a text is continued (steer, completions), edits apply to what is generated too: a mean is that of the prompt, and rows of
 * another run go on as far as it does. Scores and patterns are edited at positions of the prompt only. */

enum lab_edit_op {
  LAB_EDIT_ADD,     /* h += strength * v; v is a vector, or the unit row of a feature */
  LAB_EDIT_PROJECT, /* h += (strength - 1)(h.u)u, u = v / |v| */
  LAB_EDIT_CAP,     /* h += (min(h.u, strength) - h.u)u */
  LAB_EDIT_SET,     /* h = v, or `value` in every column */
  LAB_EDIT_SCALE,   /* h *= value; of features: their activations */
  LAB_EDIT_ZERO,    /* h = 0 */
  LAB_EDIT_MEAN,    /* h = its mean over `over`; of a feature: its activation = its mean + value */
  LAB_EDIT_CLAMP,   /* activations of features = value, active there or not */
  LAB_EDIT_ABLATE,  /* ... = 0 */
  LAB_EDIT_SPLICE,  /* h = what the dictionary makes of it, after `features` have changed */
  LAB_EDIT_PATCH,   /* h = rows of another run, or given ones */
  LAB_EDIT_KNOCKOUT /* scores = -inf: the keys are not seen */
};

enum lab_where { LAB_EVERYWHERE, LAB_PROMPT, LAB_GENERATED, LAB_LISTED };
enum lab_over { LAB_OVER_POSITIONS, LAB_OVER_BATCH, LAB_OVER_CORPUS };

/* One change of a splice: LAB_EDIT_CLAMP, ABLATE or SCALE. */
struct lab_feature_edit {
  enum lab_edit_op op;
  int64_t index;
  double value;
};

struct lab_edit {
  enum lab_edit_op op;
  const char *point;     /* a point's name; NULL where source_id says it */
  const char *source_id; /* a dictionary: SPLICE; with index or features also ADD, PROJECT, CAP, SCALE, MEAN, CLAMP, ABLATE */
  int64_t index;         /* a feature; -1: none */
  const float *vector;
  size_t n_vector;
  double strength, value;
  bool uniform;          /* ADD, SET: `value` in every column takes the place of a vector */
  bool max_unit;         /* strength and value count in the feature's largest stored activation */
  const int64_t *heads;  /* columns of these heads only, at a point that has heads; none: all */
  size_t n_heads;
  const int64_t *keys;   /* of scores and patterns: what is looked at, -1 is the last; none: all. `positions` are what looks */
  size_t n_keys;
  enum lab_where where;
  const int64_t *positions; /* LAB_LISTED: of the prompt; -1 is the last */
  size_t n_positions;
  bool special;          /* false: special tokens of the prompt are left alone */
  bool include_error;    /* of feature edits and splices: what the dictionary does not explain stays */
  const struct lab_feature_edit *features; /* SPLICE */
  size_t n_features;
  const struct lab_input *from;     /* PATCH: the run to take from; MEAN: the run to average; NULL: none */
  const struct lab_edit *from_edits; /* its edits: no PATCH with from, no MEAN */
  size_t n_from_edits;
  const int64_t *from_positions;    /* PATCH: as many as `positions` select, in order; none: the same positions. MEAN: those that it is over; none: all */
  size_t n_from_positions;
  const float *rows;     /* PATCH: [n_rows][width of the point (of the heads, of their keys)], one for each selected position */
  size_t n_rows, row_width;
  enum lab_over over;    /* MEAN without from: of this text, of all texts of the request, or of `texts`; unedited */
  const struct lab_input *texts; /* LAB_OVER_CORPUS; none, of a feature: what its statistics say */
  size_t n_texts;
  bool per_position;     /* MEAN over several texts: each position has its own; all of as many tokens */
};

/* ---- points ----------------------------------------------------------------------------------------- */

/* A kind of point: "blocks.N.attn.hook_z", at every layer N, or a point that stands once. */
struct lab_point {
  const char *name;
  const char *const *spellings;  /* other names of it */
  size_t n_spellings;
  const char *kind;              /* "hot", "cold", "derived" (docs/points.md) */
  int64_t heads, width;          /* a row: heads (0: none) times width */
  bool square;                   /* scores and patterns: heads times the tokens of the text */
  const char *missing;           /* why this model does not have it; NULL: it does */
  const char *fixed;             /* why it cannot be edited; NULL: it can */
};

/* All of them, in the order in which they come up in a pass. In the arena. */
int lab_points(const struct lab_model_info *model, const struct lab *lab, struct arena *arena, const struct lab_point **out, size_t *n,
               struct error *error) MUST_CHECK;

/* ---- run -------------------------------------------------------------------------------------------- */

struct lab_run_args {
  const struct lab_model_info *model;
  const struct lab_input *inputs;
  size_t n_inputs;
  enum lab_bos bos;           /* in front of texts, where the model has one; DEFAULT: yes, as in steer. Tokens stay as they
                                 are */
  const char *const *points;  /* names, or globs: "blocks.*.hook_resid_pre" */
  size_t n_points;
  const struct lab_edit *edits;
  size_t n_edits;
  int64_t stop_at_layer;      /* run layers [0, n) and give the residual stream; negative counts from the end; INT64_MIN: all */
  const int64_t *positions;   /* what is reported; -1 is the last; none: all */
  size_t n_positions;
  const int64_t *heads;       /* of points with heads; none: all */
  size_t n_heads;
  int top_k;                  /* likeliest next tokens at each reported position; 0: none */
  bool loss;                  /* -log p of each next token, and their mean */
};

/* Fields: "text", "text[i]", "tokens", "tokens[i]", "points[i]", "edits[i]...", "stopAtLayer", "positions[i]", "heads[i]". */
int lab_run(struct lab *lab, const struct lab_run_args *args, struct lab_waker waker, struct lab_job **out,
            struct error *error) MUST_CHECK;

struct lab_token {
  int32_t id;
  const char *text; /* decoded alone, valid UTF-8 */
  float logit, logprob;
  int64_t rank;     /* 0 is the likeliest */
};

/* Activations of one point: f32 [rows][dims...] for each text, at `offset` of the spool. */
struct lab_tensor {
  const char *name; /* the point's TransformerLens name; "residual" for what stop_at_layer gives */
  int64_t dims[3];  /* of one position */
  int n_dims;
  int64_t width;    /* their product */
  bool square;      /* scores or a pattern: dims are heads and positions looked at */
};
struct lab_run_text {
  const int32_t *ids;
  const char *const *tokens;
  const bool *special;        /* BOS, EOS, turns of chats, ... */
  size_t n_tokens;
  const int64_t *positions;   /* reported */
  size_t n_positions;
  const float *losses;        /* [n_tokens - 1]: of tokens 1, 2, ...; NULL when not asked for */
  double loss;                /* their mean; NaN for one token */
  const struct lab_token *top; /* [n_positions][top_k] */
  const int64_t *offsets;     /* [n_tensors] bytes */
};
struct lab_run_result {
  const struct lab_run_text *texts;
  size_t n_texts;
  const struct lab_tensor *tensors;
  size_t n_tensors;
  int top_k;
  int64_t bytes;              /* of the spool */
};
/* Of a LAB_JOB_DONE job; owned by it. */
const struct lab_run_result *lab_run_result(const struct lab_job *job);

/* Bytes [offset, offset + n) of the activations: for each tensor in its order, of each text in its order, little-endian f32.
 * Any thread, while the job lives. ERROR_IO. */
int lab_run_read(struct lab_job *job, int64_t offset, void *to, size_t n, struct error *error) MUST_CHECK;

/* ---- next ------------------------------------------------------------------------------------------- */

struct lab_next_args {
  const struct lab_model_info *model;
  const struct lab_input *inputs;
  size_t n_inputs;
  enum lab_bos bos;
  const struct lab_edit *edits;
  size_t n_edits;
  int top_k;
  const struct lab_input *answers; /* one token each: as text or id */
  size_t n_answers;
  bool prepend_space;              /* before answers given as text that do not begin with one */
  bool loss;
};
/* Fields as lab_run's; "topK" where all tables of all texts are more than a reply may hold. */
int lab_next(struct lab *lab, const struct lab_next_args *args, struct lab_waker waker, struct lab_job **out,
             struct error *error) MUST_CHECK;

struct lab_next_table {
  const struct lab_token *top;     /* [top_k] likeliest first */
  const struct lab_token *answers; /* [n_answers] */
  double loss;                     /* mean over the text's tokens; NaN when not asked for */
};
struct lab_next_text {
  const int32_t *ids;
  const char *const *tokens;
  size_t n_tokens;
  struct lab_next_table before, after;
};
struct lab_next_result {
  const struct lab_next_text *texts;
  size_t n_texts;
  int top_k;
  size_t n_answers;
  bool edited;                     /* there were edits: `after` is with them */
};
const struct lab_next_result *lab_next_result(const struct lab_job *job);

/* ---- compare ---------------------------------------------------------------------------------------- */

struct lab_compare_args {
  const struct lab_model_info *model;
  struct lab_input inputs[2];
  enum lab_bos bos;
  const char *source_id;
  int64_t positions[2]; /* in each; -1 is the last */
  int n_results;
};
int lab_compare(struct lab *lab, const struct lab_compare_args *args, struct lab_waker waker, struct lab_job **out,
                struct error *error) MUST_CHECK;

struct lab_difference {
  int32_t index;
  float first, second; /* activations */
};
struct lab_compare_result {
  const struct lab_source_info *source;
  const int32_t *ids[2];
  const char *const *tokens[2];
  size_t n_tokens[2];
  int64_t positions[2];
  const struct lab_difference *features; /* largest |second - first| first; equal ones are left out */
  size_t n_features;
};
const struct lab_compare_result *lab_compare_result(const struct lab_job *job);

/* ---- patch ------------------------------------------------------------------------------------------ */

/* LOGIT, LOSS (the mean over the text's own tokens): of lab_attribute alone. */
enum lab_metric { LAB_LOGIT_DIFFERENCE, LAB_LOGPROB, LAB_PROBABILITY, LAB_LOGIT, LAB_LOSS };
enum lab_axes { LAB_LAYER_POSITION, LAB_LAYER_HEAD, LAB_LAYER };

struct lab_patch_args {
  const struct lab_model_info *model;
  struct lab_input clean, corrupted; /* as many tokens each */
  enum lab_bos bos;
  const char *point;                 /* a kind of point, "resid_pre", at every layer */
  enum lab_axes axes;                /* one cell patches one position, one head at all positions, all of it */
  enum lab_metric metric;            /* of the last token's prediction */
  struct lab_input answers[2];       /* the right one, and for a difference the wrong one */
  bool prepend_space;
  const int64_t *layers;             /* none: all */
  size_t n_layers;
  const int64_t *positions;          /* LAB_LAYER_POSITION; none: all */
  size_t n_positions;
};
int lab_patch(struct lab *lab, const struct lab_patch_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) MUST_CHECK;

struct lab_patch_result {
  const int32_t *ids[2];             /* clean, corrupted */
  const char *const *tokens[2];
  size_t n_tokens;
  struct lab_token answers[2];       /* id and text; the second id is -1 without one */
  const char *point;                 /* "blocks.N.hook_resid_pre" */
  const int64_t *layers, *columns;   /* columns: positions or heads; of LAB_LAYER one, 0 */
  size_t n_layers, n_columns;
  double clean, corrupted;           /* the metric */
  const double *values;              /* [n_layers][n_columns] the metric of each cell */
  const double *matrix;              /* ... as (value - corrupted) / (clean - corrupted); NaN where these are equal */
};
const struct lab_patch_result *lab_patch_result(const struct lab_job *job);

/* ---- the logits of features -------------------------------------------------------------------------- */

/* Mean, standard deviation, skewness and kurtosis (3 for a normal distribution) of the logits that each feature's row gives the
 * tokens of the vocabulary, of the whole population. */
struct lab_moments {
  double mean, std, skewness, kurtosis; /* NaN: its logits are not finite, or all equal */
};

/* Of all features of a source, as a job: at once where the store has them; else computed in the engine's background and, with a
 * store, kept. ERROR_ARGUMENT "source": its rows do not reach the logits. */
int lab_logit_stats(struct lab *lab, const struct lab_source_info *source, struct lab_waker waker, struct lab_job **out,
                    struct error *error) MUST_CHECK;
const struct lab_moments *lab_logit_stats_result(const struct lab_job *job); /* [n_feat] */

/* Tokens by words, ids, or how they are written. */
struct lab_token_set {
  const char *name;
  const char *const *words; /* all tokens of each word */
  size_t n_words;
  const int64_t *ids;
  size_t n_ids;
  bool prepend_space;       /* before words that do not begin with one */
};
struct lab_token_sets {
  const struct lab_token_set *sets;
  size_t n_sets;
  const char *const *classes; /* built-in sets (core/analysis/token_classes.h), "all" for every one */
  size_t n_classes;
};

enum lab_end { LAB_EITHER_END, LAB_TOP_END, LAB_BOTTOM_END };

/* How far each set's tokens stand together among all tokens sorted by the logit that a feature gives them. */
struct lab_enrichment_args {
  const struct lab_source_info *source;
  struct lab_token_sets sets;
  const int64_t *features; /* none: all */
  size_t n_features;
  int top_k;               /* features of each set, highest score first */
  enum lab_end end;        /* of these only those where the set stands there */
};
/* Fields: "builtin[i]", "sets[i].name", "sets[i].words[j]", "sets[i].ids[j]", "features[i]", "source". */
int lab_enrichment(struct lab *lab, const struct lab_enrichment_args *args, struct lab_waker waker, struct lab_job **out,
                   struct error *error) MUST_CHECK;

struct lab_enriched {
  uint32_t index; /* of the feature */
  float score;    /* 0 to 1; negative: the set stands with the smallest logits */
};
struct lab_enrichment_set {
  const char *name;
  int64_t size;                    /* tokens */
  const char *const *examples;     /* some of them, by id */
  size_t n_examples;
  const struct lab_enriched *top;  /* largest |score| first, lower index among equals */
  size_t n_top;
  const float *scores;             /* [n_features] as lab_enriched.score; NaN: none */
};
struct lab_enrichment_result {
  const struct lab_enrichment_set *sets;
  size_t n_sets;
  const uint32_t *features;        /* [n_features] */
  size_t n_features;
  int64_t vocabulary;
};
const struct lab_enrichment_result *lab_enrichment_result(const struct lab_job *job);

/* ---- features that prefer words ---------------------------------------------------------------------- */

struct lab_token_score_args {
  const struct lab_model_info *model;
  const struct lab_source_info *source;
  const struct lab_input *inputs;
  size_t n_inputs;
  enum lab_bos bos;
  struct lab_token_set set; /* words: positions of a text where all tokens of one stand behind each other; name unused */
  int top_k;
};
/* Fields: "text[i]", "words[j]", "ids[j]". ERROR_ARGUMENT "words" where the texts have none of them. */
int lab_token_score(struct lab *lab, const struct lab_token_score_args *args, struct lab_waker waker, struct lab_job **out,
                    struct error *error) MUST_CHECK;

struct lab_token_scored {
  int32_t index;
  double score;                    /* mean on the set over mean elsewhere; NaN: it fires nowhere else */
  double mean_on, mean_off;        /* of its activations that are not 0 */
  int64_t n_on, n_off;             /* positions where it fires */
};
struct lab_token_score_result {
  int64_t n_on, n_off;             /* positions of the set, and others; those that the source leaves out (BOS) are in neither */
  const struct lab_token_scored *features; /* that fire on the set: those that fire nowhere else first, by mean_on, then by score */
  size_t n_features;
  const char *const *missing;      /* words that no text has */
  size_t n_missing;
};
const struct lab_token_score_result *lab_token_score_result(const struct lab_job *job);

/* ---- heads ------------------------------------------------------------------------------------------ */

struct lab_heads_args {
  const struct lab_model_info *model;
  int64_t seed;
  int batch, length;        /* so many sequences of so many random tokens, each repeated once */
  bool prepend_bos;
  bool loss;
};
int lab_heads(struct lab *lab, const struct lab_heads_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) MUST_CHECK;

/* Attention from token i, averaged over tokens and sequences, to ... (BOS, where there is one, does not count as a token) */
struct lab_heads_result {
  int n_layer, n_head;
  const double *induction;  /* [n_layer][n_head] the token after the one that i repeats: i - (length - 1) */
  const double *previous;   /* ... i - 1 */
  const double *duplicate;  /* ... the token that i repeats: i - length */
  const double *losses;     /* [n_losses] of tokens 1, 2, ...; mean over the sequences; NULL when not asked for */
  size_t n_losses;
  const int32_t *const *ids; /* [n_texts][n_tokens]: what was drawn */
  size_t n_texts, n_tokens;
};
const struct lab_heads_result *lab_heads_result(const struct lab_job *job);

/* ---- logit lens and direct logit attribution -------------------------------------------------------- */

struct lab_lens_args {
  const struct lab_model_info *model;
  const struct lab_input *inputs;
  size_t n_inputs;
  enum lab_bos bos;
  const struct lab_edit *edits;
  size_t n_edits;
  const int64_t *layers;    /* the residual stream as layer l begins; n_layer: at the end; none: all */
  size_t n_layers;
  const int64_t *positions; /* none: all */
  size_t n_positions;
  int top_k;
  const struct lab_input *answers;
  size_t n_answers;
  bool prepend_space;
  int64_t n_tokens;         /* of one text, without positions and edits: so many tokens are generated behind it first, and looked at too */
  double temperature;       /* of these, as in lab_steer_args */
  int64_t seed;
  int32_t ends_turn;        /* a further token that ends the text, as EOS does; -1: none */
  bool words;               /* top holds words alone (letters and numbers, with ' and - inside), but for the likeliest token of the last
                               layer; where so few are among the LAB_TOP_MOST likeliest, ids of -1 behind them */
};
int lab_lens(struct lab *lab, const struct lab_lens_args *args, struct lab_waker waker, struct lab_job **out,
             struct error *error) MUST_CHECK;

struct lab_lens_text {
  const int32_t *ids;
  const char *const *tokens;
  const char *const *shown;        /* a character that several tokens make up stands at each of them, continued at all but the first */
  const bool *continued;
  const char *completion;          /* the text that was generated; "" where none was */
  size_t n_tokens, n_prompt;       /* n_prompt: of them not generated */
  const int64_t *positions;
  size_t n_positions;
  const struct lab_token *top;     /* [n_layers][n_positions][top_k] */
  const struct lab_token *answers; /* [n_layers][n_positions][n_answers] */
};
struct lab_lens_result {
  const struct lab_lens_text *texts;
  size_t n_texts;
  const int64_t *layers;
  size_t n_layers;
  int top_k;
  size_t n_answers;
};
const struct lab_lens_result *lab_lens_result(const struct lab_job *job);

struct lab_components_args {
  const struct lab_model_info *model;
  const struct lab_input *inputs;
  size_t n_inputs;
  enum lab_bos bos;
  const struct lab_edit *edits;
  size_t n_edits;
  int64_t position;          /* whose prediction; -1 is the last */
  struct lab_input answers[2]; /* the second may be empty (neither text nor ids): the logit itself, not a difference */
  bool prepend_space;
  bool heads;                /* also each head of each layer */
};
int lab_components(struct lab *lab, const struct lab_components_args *args, struct lab_waker waker, struct lab_job **out,
                   struct error *error) MUST_CHECK;

/* What each component adds to a logit, or to a difference of two: its output, divided as the final norm divides the residual
 * stream there, through gain and unembedding. embedding + attention + mlp + bias = total, which the model's logits give too,
 * but for a soft cap. */
struct lab_components_text {
  const int32_t *ids;
  const char *const *tokens;
  size_t n_tokens;
  int64_t position;
  double embedding, bias, total; /* bias: of the final norm and of the unembedding */
  const double *attention, *mlp; /* [n_layer] */
  const double *heads;           /* [n_layer][n_head], without the output's bias; NULL when not asked for */
};
struct lab_components_result {
  const struct lab_components_text *texts;
  size_t n_texts;
  struct lab_token answers[2];   /* the second id is -1 without one */
  int n_layer, n_head;
};
const struct lab_components_result *lab_components_result(const struct lab_job *job);

/* ---- attribute -------------------------------------------------------------------------------------- */

struct lab_attribute_args {
  const struct lab_model_info *model;
  struct lab_input input;
  struct lab_input against;      /* as many tokens; neither text nor ids: none */
  enum lab_bos bos;
  enum lab_metric metric;
  int64_t position;              /* whose prediction is measured; -1 is the last. Not of LOSS */
  struct lab_input answers[2];   /* the right one, and for a difference the wrong one; none for LOSS */
  bool prepend_space;
  const char *const *points;     /* names, or globs */
  size_t n_points;
  const char *const *sources;
  size_t n_sources;
  const struct lab_edit *edits;  /* of the input's run: gradients go through them. None at scores or patterns, none that needs a whole
                                    encode (splices, TopK, without the error) */
  size_t n_edits;
  const int64_t *positions;      /* reported; none: all */
  size_t n_positions;
  int top_k;                     /* features of a source, at each position and over the text */
  bool gradients;                /* themselves, to be read with lab_attribute_read */
  bool hold_norms, hold_pattern; /* constants: what norms divide by, what attention looks at */
};

/* Fields: "text", "tokens", "against.text", "points[i]", "sources[i]", "edits[i]...", "position", "positions[i]", "answers". */
int lab_attribute(struct lab *lab, const struct lab_attribute_args *args, struct lab_waker waker, struct lab_job **out,
                  struct error *error) MUST_CHECK;

/* Gradient times activation, or times its difference from the other text, summed over the columns of a row or of each head. */
struct lab_attribution {
  struct lab_tensor tensor;      /* of the gradients: [n_positions][dims...] */
  int64_t offset;                /* of these, where asked for */
  int32_t heads;                 /* 0: none */
  const double *values;          /* [n_positions][heads, or 1] */
};

struct lab_feature_share {
  int32_t index;
  float activation, against;     /* over the text: the largest of each */
  double attribution;
};

/* features + bias + error = total, which is the attribution of the columns that the source writes. bias: what it makes of a row without
 * any feature (b_dec, means, a skip). */
struct lab_share {
  int64_t position;              /* -1: over the text */
  double total, features, bias, error;
  const struct lab_feature_share *top; /* largest |attribution| first */
  size_t n_top, n_active;
};

struct lab_attributed_source {
  const struct lab_source_info *source;
  const char *point;             /* that it writes */
  struct lab_share text;         /* over all positions */
  const struct lab_share *positions; /* [n_positions] */
};

struct lab_attribute_result {
  const int32_t *ids[2];         /* of the input, of the other text (or NULL) */
  const char *const *tokens[2];
  size_t n_tokens;
  struct lab_token answers[2];   /* id and text; -1 without */
  int64_t position;              /* -1 of LOSS */
  double value[2];               /* the metric */
  const int64_t *positions;
  size_t n_positions;
  const struct lab_attribution *points;
  size_t n_points;
  const struct lab_attributed_source *sources;
  size_t n_sources;
  bool differs;                  /* there is another text */
  int64_t bytes;                 /* of the gradients */
};
const struct lab_attribute_result *lab_attribute_result(const struct lab_job *job);
int lab_attribute_read(struct lab_job *job, int64_t offset, void *to, size_t n, struct error *error) MUST_CHECK;

#endif
