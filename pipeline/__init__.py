"""How data moves: storage, artefacts, Ray Data ingest, actors, recommenders. The only room that imports ray."""
