/* archive_command.h: the verbs `steerd import` and `steerd export`: statistics in and out of a store as Neuronpedia's dataset
 * batches. */
#ifndef STEERD_SERVER_ARCHIVE_COMMAND_H
#define STEERD_SERVER_ARCHIVE_COMMAND_H

/* argv holds the arguments behind the verb. Each returns the exit status. */
int run_import(int argc, char **argv);
int run_export(int argc, char **argv);
void help_import(void);
void help_export(void);

#endif
