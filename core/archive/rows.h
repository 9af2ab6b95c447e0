/* rows.h: the lines of Neuronpedia's dataset batches as rows of the store, and back. Shared by import and export.
 *
 * A line is one JSON object with upstream's column names. What the store has a column for is read into it; every other member
 * that says something (not null, "", [] or false) goes to `extra` in the order it stands in. Steerd's own columns that upstream
 * lacks are members of their own, so that what is written reads back the same: n_fired and mean of a feature, document and
 * position of an example, origin and scores of an explanation, n_tokens and conventions of a source. */
#ifndef STEERD_CORE_ARCHIVE_ROWS_H
#define STEERD_CORE_ARCHIVE_ROWS_H

#include "core/archive.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"

#define ARCHIVE_DEPTH 32 /* nesting of a line */

/* The folders of the layout, in the order they are read. */
enum archive_part { ARCHIVE_FEATURES, ARCHIVE_ACTIVATIONS, ARCHIVE_EXPLANATIONS, ARCHIVE_PARTS };
extern const char *const archive_part_names[ARCHIVE_PARTS];

/* Which feature a line is about; borrowed from the line. */
struct archive_place {
  const char *model, *source;
  uint32_t index;
};

/* Reading: 0, or -1 with ERROR_FORMAT that names the member. Everything lands in the arena. */
int archive_read_place(const struct json_node *line, struct archive_place *out, struct error *error) MUST_CHECK;

/* Sets index and the groups of which the line says something. An empty list says nothing. */
int archive_read_feature(const struct json_node *line, struct arena *arena, struct store_feature *out,
                         struct error *error) MUST_CHECK;
int archive_read_example(const struct json_node *line, struct arena *arena, struct store_example *out,
                         struct error *error) MUST_CHECK;

/* Origin: what the line says, else imported. Leaves source and index empty. */
int archive_read_explanation(const struct json_node *line, struct arena *arena, struct store_explanation *out,
                             struct error *error) MUST_CHECK;
int archive_read_model(const struct json_node *line, struct arena *arena, struct store_model *out,
                       struct error *error) MUST_CHECK;

/* Statistics too: from steerd's own members, else from the numbers of prompts that upstream keeps; activations are then taken
 * to be folded, and BOS not counted, as SAEDashboard does both. made_at stays NULL where the line has none. */
int archive_read_source(const struct json_node *line, struct arena *arena, struct store_source *out,
                        struct error *error) MUST_CHECK;

/* Writing: one object. */
void archive_write_feature(struct json_writer *w, const struct store_source *source, const struct store_feature *feature);
void archive_write_example(struct json_writer *w, const struct store_source *source, uint32_t index,
                           const struct store_example *example);
void archive_write_explanation(struct json_writer *w, const struct store_explanation *row);
void archive_write_model(struct json_writer *w, const struct store_model *model);
void archive_write_source(struct json_writer *w, const struct store_source *source);
void archive_write_set(struct json_writer *w, const struct store_source *source);

/* "automatic", "imported", "manual". */
const char *archive_origin_word(enum store_origin origin);

/* Whether a member of a feature's (an example's) line has a column or follows from columns. */
bool archive_feature_column(const char *name);
bool archive_example_column(const char *name);

/* Whether two identities of a source may be the same dictionary's (archive.c). */
bool archive_same_identity(const char *a, const char *b);

#endif
