"""What can be trained on and measured: our data set directories, tars, folders, data sets of the Hugging Face Hub, by number or as a stream."""
