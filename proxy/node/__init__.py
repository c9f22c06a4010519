"""The node's kernel: nft table, addresses and conntrack entries, planned as values and then carried out."""
