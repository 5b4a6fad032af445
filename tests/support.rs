use postgres as _;
