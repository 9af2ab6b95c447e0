/* lab_settings.h: settings as the lab takes them. */
#ifndef STEERD_SERVER_LAB_SETTINGS_H
#define STEERD_SERVER_LAB_SETTINGS_H

#include "core/core.h"
#include "server/options.h"

/* Fills *out, holder and run_jobs left empty; its arrays and texts live in options->arena. Of lab_settings_is_demo it is
 * the demo that stands beside the program, with the sources that are named. ERROR_ARGUMENT for a model or source that is not
 * [ID=]PLACE or MODEL/SOURCE=PATH. */
int lab_settings(struct options *options, struct lab_options *out, struct error *error) MUST_CHECK;

/* Whether no model is named, and no source but of "demo". */
bool lab_settings_is_demo(const struct options *options);

/* Where "demo" and "demo/SOURCE" are, unless there is such a file here: the demo's folder, and that of one of its dictionaries; "?q8" and its like
 * stay behind it. Any other place as it is. In options->arena; NULL on error. */
const char *lab_settings_place(struct options *options, const char *place, struct error *error) MUST_CHECK;

/* What computes, as lab_options and inspect_options take it; in options->arena. NULL when out of memory. */
const char *lab_settings_device(struct options *options, struct error *error) MUST_CHECK;

/* Where a served demo keeps what it remembers when no store is named: a file in the user's cache, "" when there is no
 * place for it; in options->arena. NULL when out of memory. */
const char *lab_settings_demo_store(struct options *options, struct error *error) MUST_CHECK;

/* The tables of names of models and of dictionaries: those of the settings, or those that came with the program; NULL for none. */
int lab_settings_names(struct options *options, const char **models, const char **dictionaries,
                       struct error *error) MUST_CHECK;

#endif
