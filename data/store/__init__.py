"""A data set directory of ours: shards of pairs in the img2dataset / WebDataset convention."""
