"""Public data sets, read in the form in which they are downloaded: one file each, of its facts and its reader."""
