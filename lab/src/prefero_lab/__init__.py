"""The laboratory: small worlds with a known gold reward, experiments of papers, a search for losses."""
