/* lab_settings.h: settings as the lab takes them. */
#ifndef STEERD_SERVER_LAB_SETTINGS_H
#define STEERD_SERVER_LAB_SETTINGS_H

#include "core/core.h"
#include "server/options.h"

/* Fills *out, holder and run_jobs left empty; its arrays and texts live in options->arena. Where neither a model nor a
 * source is named it is the demo that stands beside the program, with its store in the user's cache. ERROR_ARGUMENT for a
 * model or source that is not ID=PATH or MODEL/SOURCE=PATH. */
int lab_settings(struct options *options, struct lab_options *out, struct error *error) MUST_CHECK;

#endif
