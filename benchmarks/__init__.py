"""Measurements side by side with unbound, dnsmasq and CoreDNS; one module for each question asked."""
