/* upload.c: whether what a client has counted may go to a source. Numbers of two dictionaries under one name would look
 * like those of one: a source that has a dictionary takes what says that it was made for that one, by the same rule as
 * imports; a source that is a name alone takes everything. */
#include "core/archive/rows.h"

static int refuse(const struct lab_source_info *source, const char *known, const char *given, struct error *error) {
  if (given)
    return error_set_field(error, ERROR_CONFLICT, "identity", "these were made for another dictionary (%.100s) than '%.64s' of model "
                           "'%.64s' (%.100s)", given, source->id, source->model_id, known);
  return error_set_field(error, ERROR_CONFLICT, "identity", "source '%.64s' of model '%.64s' has a dictionary, with whose statistics "
                         "others are not mixed: say that these were made for it (\"identity\": \"%.100s\"), or upload to a set of "
                         "your own (POST /api/source-set/new)", source->id, source->model_id, known);
}

/* upload->identity in the arena. */
static int judge(const struct lab *lab, const struct lab_source_info *source, const char *identity, struct arena *arena,
                 struct store_upload *upload, struct error *error) {
  struct store_source row;
  struct store *store = lab_store(lab);
  if (!store) return lab_needs_store(error);
  upload->source = lab_store_source(lab, source);
  int found = store_source_at(store, upload->source, arena, &row, error);
  if (found < 0) return -1;
  upload->identity = found ? row.identity : NULL;
  if (!upload->identity || (identity && archive_same_identity(identity, upload->identity))) return 0;
  return refuse(source, upload->identity, identity, error);
}

int archive_upload_features(const struct lab *lab, const struct lab_source_info *source, const char *identity,
                            const struct store_feature *features, size_t n, bool *added, struct error *error) {
  struct arena arena;
  struct store_upload upload;
  arena_init(&arena, 0);
  int result = judge(lab, source, identity, &arena, &upload, error);
  if (result == 0) result = store_upload_features(lab_store(lab), &upload, features, n, added, error);
  arena_clear(&arena);
  return result;
}

int archive_upload_examples(const struct lab *lab, const struct lab_source_info *source, const char *identity, uint32_t index,
                            const struct store_example *examples, size_t n, size_t *added, struct error *error) {
  struct arena arena;
  struct store_upload upload;
  arena_init(&arena, 0);
  int result = judge(lab, source, identity, &arena, &upload, error);
  if (result == 0) result = store_upload_examples(lab_store(lab), &upload, index, examples, n, added, error);
  arena_clear(&arena);
  return result;
}
