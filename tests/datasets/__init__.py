"""Tests of `fanin.datasets`; a package, so that its files may share names with those of other rooms."""
