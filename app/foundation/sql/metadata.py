"""What all tables share: one catalogue, stable constraint names, checks with both bounds."""

from typing import Final

from sqlalchemy import CheckConstraint, MetaData

HUGE: Final = "1e300"  # an upper bound that NaN and Infinity do not pass

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def positive(column: str) -> tuple[CheckConstraint, CheckConstraint]:
    """An exact number above zero: digits and a point where SQLite keeps it as text."""
    return (
        CheckConstraint(
            f"{column} GLOB '*[1-9]*' AND {column} NOT GLOB '*[^0-9.]*'", name=f"{column}_positive"
        ).ddl_if(dialect="sqlite"),
        CheckConstraint(
            f"{column} > 0 AND {column} < 100000000000000000000", name=f"{column}_positive"
        ).ddl_if(dialect="postgresql"),
    )


def exact(column: str) -> tuple[CheckConstraint, CheckConstraint]:
    """An exact number of either sign, or none."""
    return (
        CheckConstraint(
            f"{column} IS NULL OR ({column} GLOB '*[0-9]*'"
            f" AND ltrim({column}, '-') NOT GLOB '*[^0-9.]*')",
            name=f"{column}_exact",
        ).ddl_if(dialect="sqlite"),
        CheckConstraint(
            f"{column} > -100000000000000000000 AND {column} < 100000000000000000000",
            name=f"{column}_exact",
        ).ddl_if(dialect="postgresql"),
    )


def between(column: str, low: str, high: str) -> CheckConstraint:
    """Both bounds, for NaN is greater than every number on PostgreSQL."""
    return CheckConstraint(f"{column} >= {low} AND {column} <= {high}", name=f"{column}_range")
