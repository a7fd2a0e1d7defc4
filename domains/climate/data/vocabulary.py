"""The table of variables: what a field is called in each place that it may come from, in which units, and its limits.

Long names are ERA5's (``2m_temperature``), as in WeatherBench 2; short names (``t2m``) are for channels and
pictures.
"""

from __future__ import annotations

from typing import Any

from domains.climate.data.variable import Conversion, Role, Variable

STANDARD_GRAVITY = 9.80665
"""m/s2; geopotential over standard gravity is geopotential height (WMO, ISO 2533)."""


_ONE = Conversion()
_TEMPERATURE = {"degC": Conversion(1.0, 273.15)}
_PRESSURE = {"hPa": Conversion(100.0)}
_SPEED = {"kt": Conversion(1852 / 3600)}
_HEIGHT = Conversion(STANDARD_GRAVITY)
_GEOPOTENTIAL = {"m": _HEIGHT, "gpm": _HEIGHT, "dam": Conversion(10 * STANDARD_GRAVITY), "J kg-1": _ONE}
_WATER = {"mm": Conversion(1e-3), "kg m-2": Conversion(1e-3), "m of water equivalent": _ONE}
_HUMIDITY = {"1": _ONE, "g kg-1": Conversion(1e-3)}
_SHARE = {"%": Conversion(0.01)}

_P, _D, _F, _S = Role.PROGNOSTIC, Role.DIAGNOSTIC, Role.FORCING, Role.STATIC
_EAST: dict[str, Any] = {"units": _SPEED, "valid_range": (-250.0, 250.0), "standard_name": "eastward_wind"}
_NORTH: dict[str, Any] = {"units": _SPEED, "valid_range": (-250.0, 250.0), "standard_name": "northward_wind",
                          "odd_under_mirror": True}  # fmt: skip
_SUMMED: dict[str, Any] = {"role": _D, "over": "sum"}
_ENERGY: dict[str, Any] = {**_SUMMED, "units": {"W s m-2": _ONE}, "valid_range": (-1e9, 1e9)}
_FLUX: dict[str, Any] = {"role": _D, "over": "mean", "valid_range": (-3000, 3000)}
_INF = float("inf")
_DAILY = Conversion(1 / 86400)
_WATER_RATE: dict[str, Any] = {
    "role": _D,
    "over": "mean",
    "units": {"mm s-1": _ONE, "mm d-1": _DAILY, "kg m-2 d-1": _DAILY},
    "valid_range": (-0.01, 0.1),
}
_RAIN: dict[str, Any] = {
    "role": _D,
    "units": _WATER,
    "valid_range": (-0.001, 5),
    "log_scale": 1e-5,
    "bounds": (0, _INF),
}
_CLOUD: dict[str, Any] = {"role": _D, "units": _SHARE, "valid_range": (-0.01, 1.01), "bounds": (0, 1)}
_GUST: dict[str, Any] = {"role": _D, "units": _SPEED, "valid_range": (-1, 250), "bounds": (0, _INF)}

VARIABLES: tuple[Variable, ...] = (
    Variable("geopotential", "z", "m2 s-2", on_levels=True,
             aliases=("gh", "zg", "phi", "geopotential_height", "hgt", "hgtprs"), units=_GEOPOTENTIAL,
             valid_range=(-3e4, 6e5), standard_name="geopotential"),
    Variable("temperature", "t", "K", on_levels=True, aliases=("ta", "air", "tmp", "tmpprs"), units=_TEMPERATURE,
             valid_range=(120, 360), standard_name="air_temperature"),
    Variable("u_component_of_wind", "u", "m s-1", on_levels=True, aliases=("ua", "uwnd", "ugrd", "ugrdprs"), **_EAST),
    Variable("v_component_of_wind", "v", "m s-1", on_levels=True, aliases=("va", "vwnd", "vgrd", "vgrdprs"), **_NORTH),
    Variable("specific_humidity", "q", "kg kg-1", on_levels=True, aliases=("hus", "shum", "qv", "spfh", "spfhprs"),
             units=_HUMIDITY, valid_range=(-0.01, 0.1), standard_name="specific_humidity"),
    Variable("relative_humidity", "r", "%", on_levels=True, aliases=("hur", "rhum", "rh", "rhprs"),
             units={"1": Conversion(100.0)}, valid_range=(-50, 250), standard_name="relative_humidity"),
    Variable("vertical_velocity", "w", "Pa s-1", on_levels=True, aliases=("wap", "omega", "vvel", "vvelprs"),
             valid_range=(-200, 200), standard_name="lagrangian_tendency_of_air_pressure"),
    Variable("vorticity", "vo", "s-1", on_levels=True, aliases=("relative_vorticity",), valid_range=(-0.1, 0.1),
             odd_under_mirror=True, standard_name="atmosphere_relative_vorticity"),
    Variable("divergence", "d", "s-1", on_levels=True, valid_range=(-0.1, 0.1), standard_name="divergence_of_wind"),
    Variable("specific_cloud_liquid_water_content", "clwc", "kg kg-1", on_levels=True, aliases=("clw",),
             units=_HUMIDITY, valid_range=(-0.01, 0.1)),
    Variable("specific_cloud_ice_water_content", "ciwc", "kg kg-1", on_levels=True, aliases=("cli",),
             units=_HUMIDITY, valid_range=(-0.01, 0.1)),
    Variable("ozone_mass_mixing_ratio", "o3", "kg kg-1", on_levels=True, units=_HUMIDITY, valid_range=(-1e-3, 1e-2)),
    Variable("fraction_of_cloud_cover", "cc", "1", on_levels=True, **_CLOUD),
    Variable("2m_temperature", "t2m", "K", aliases=("2t", "tas", "tmp2m"), units=_TEMPERATURE, valid_range=(150, 360),
             standard_name="air_temperature", height=2),
    Variable("2m_dewpoint_temperature", "d2m", "K", aliases=("2d", "tdps"), units=_TEMPERATURE, valid_range=(120, 340),
             standard_name="dew_point_temperature", height=2),
    Variable("10m_u_component_of_wind", "u10", "m s-1", aliases=("10u", "uas", "u10m", "ugrd10m"), height=10, **_EAST),
    Variable("10m_v_component_of_wind", "v10", "m s-1", aliases=("10v", "vas", "v10m", "vgrd10m"), height=10, **_NORTH),
    Variable("100m_u_component_of_wind", "u100m", "m s-1", aliases=("100u",), height=100, **_EAST),
    Variable("100m_v_component_of_wind", "v100m", "m s-1", aliases=("100v",), height=100, **_NORTH),
    Variable("mean_sea_level_pressure", "msl", "Pa",
             aliases=("psl", "prmsl", "prmslmsl", "mslp", "slp", "air_pressure_at_sea_level"), units=_PRESSURE,
             valid_range=(7e4, 1.2e5), standard_name="air_pressure_at_mean_sea_level"),
    Variable("surface_pressure", "sp", "Pa", aliases=("ps", "pres_surface", "pressfc"), units=_PRESSURE,
             valid_range=(3e4, 1.2e5), standard_name="surface_air_pressure"),
    Variable("skin_temperature", "skt", "K", aliases=("ts",), units=_TEMPERATURE, valid_range=(150, 370),
             standard_name="surface_temperature"),
    Variable("sea_surface_temperature", "sst", "K", aliases=("tos",), units=_TEMPERATURE, valid_range=(250, 320),
             standard_name="sea_surface_temperature", has_gaps=True),
    Variable("sea_ice_cover", "siconc", "1", aliases=("ci", "sic", "icec", "icecsfc", "sea_ice_concentration"),
             units=_SHARE, valid_range=(-0.01, 1.01), standard_name="sea_ice_area_fraction", has_gaps=True),
    Variable("total_column_water_vapour", "tcwv", "kg m-2",
             aliases=("prw", "pwat", "pwatclm", "total_column_water_vapor"), units={"mm": _ONE},
             valid_range=(-1, 150), standard_name="atmosphere_mass_content_of_water_vapor"),
    Variable("total_column_water", "tcw", "kg m-2", units={"mm": _ONE}, valid_range=(-1, 200)),
    Variable("total_cloud_cover", "tcc", "1", aliases=("clt",), standard_name="cloud_area_fraction", **_CLOUD),
    Variable("low_cloud_cover", "lcc", "1", **_CLOUD),
    Variable("medium_cloud_cover", "mcc", "1", **_CLOUD),
    Variable("high_cloud_cover", "hcc", "1", **_CLOUD),
    Variable("10m_wind_gust_since_previous_post_processing", "fg10", "m s-1",
             aliases=("10fg", "wsgsmax"), over="max", **_GUST),
    Variable("instantaneous_10m_wind_gust", "i10fg", "m s-1", aliases=("gust",),
             standard_name="wind_speed_of_gust", **_GUST),
    Variable("maximum_2m_temperature_since_previous_post_processing", "mx2t", "K", _D, units=_TEMPERATURE,
             aliases=("tasmax",), valid_range=(150, 370), over="max"),
    Variable("minimum_2m_temperature_since_previous_post_processing", "mn2t", "K", _D, units=_TEMPERATURE,
             aliases=("tasmin",), valid_range=(120, 360), over="min"),
    Variable("total_precipitation", "tp", "m", aliases=("total_precipitation_1hr",), over="sum",
             standard_name="lwe_thickness_of_precipitation_amount", **_RAIN),
    Variable("convective_precipitation", "cp", "m", over="sum", **_RAIN),
    Variable("large_scale_precipitation", "lsp", "m", over="sum", **_RAIN),
    Variable("snowfall", "sf", "m", over="sum", **_RAIN),
    Variable("evaporation", "e", "m", units=_WATER, valid_range=(-1, 1), **_SUMMED),
    Variable("runoff", "ro", "m", over="sum", **_RAIN),
    Variable("total_precipitation_6hr", "tp6h", "m", **_RAIN),
    Variable("total_precipitation_12hr", "tp12h", "m", **_RAIN),
    Variable("total_precipitation_24hr", "tp24h", "m", **_RAIN),
    Variable("mean_total_precipitation_rate", "mtpr", "kg m-2 s-1", aliases=("avg_tprate", "pr", "prate"),
             standard_name="precipitation_flux", log_scale=1e-6, bounds=(0, _INF), **_WATER_RATE),
    Variable("mean_evaporation_rate", "mer", "kg m-2 s-1", aliases=("avg_ie",), **_WATER_RATE),
    Variable("surface_solar_radiation_downwards", "ssrd", "J m-2", **_ENERGY),
    Variable("surface_thermal_radiation_downwards", "strd", "J m-2", **_ENERGY),
    Variable("surface_net_solar_radiation", "ssr", "J m-2", **_ENERGY),
    Variable("surface_net_thermal_radiation", "str", "J m-2", **_ENERGY),
    Variable("top_net_solar_radiation", "tsr", "J m-2", **_ENERGY),
    Variable("top_net_thermal_radiation", "ttr", "J m-2", **_ENERGY),
    Variable("surface_latent_heat_flux", "slhf", "J m-2", **_ENERGY),
    Variable("surface_sensible_heat_flux", "sshf", "J m-2", **_ENERGY),
    Variable("mean_surface_downward_short_wave_radiation_flux", "msdwswrf", "W m-2",
             aliases=("avg_sdswrf", "rsds"), standard_name="surface_downwelling_shortwave_flux_in_air", **_FLUX),
    Variable("mean_surface_downward_long_wave_radiation_flux", "msdwlwrf", "W m-2",
             aliases=("avg_sdlwrf", "rlds"), standard_name="surface_downwelling_longwave_flux_in_air", **_FLUX),
    Variable("mean_top_net_long_wave_radiation_flux", "mtnlwrf", "W m-2", aliases=("avg_tnlwrf",), **_FLUX),
    Variable("mean_surface_latent_heat_flux", "mslhf", "W m-2", aliases=("avg_slhtf", "hfls"), **_FLUX),
    Variable("mean_surface_sensible_heat_flux", "msshf", "W m-2", aliases=("avg_ishf", "hfss"), **_FLUX),
    Variable("toa_incident_solar_radiation", "tisr", "J m-2", _F),
    Variable("land_sea_mask", "lsm", "1", _S, aliases=("sftlf",), units=_SHARE, valid_range=(-0.01, 1.01),
             standard_name="land_binary_mask"),
    Variable("geopotential_at_surface", "orography", "m2 s-2", _S,
             aliases=("oro", "orog", "phis", "surface_geopotential"), units=_GEOPOTENTIAL,
             valid_range=(-2e4, 1e5), standard_name="surface_altitude"),
    Variable("soil_type", "slt", "1", _S),
)  # fmt: skip

OTHER_STANDARD_NAMES = {
    "geopotential_height": "geopotential",
    "edge_heights": "geopotential",  # MERRA-2's H, which is at mid levels all the same
    "surface_geopotential_height": "geopotential_at_surface",  # MERRA-2's PHIS
    "air_pressure_at_sea_level": "mean_sea_level_pressure",
    "land_area_fraction": "land_sea_mask",
    "surface_geopotential": "geopotential_at_surface",
    "precipitation_amount": "total_precipitation",
    "sea_surface_skin_temperature": "sea_surface_temperature",
}
"""Standard names by which a variable is known beside its own, or in other units."""

HEIGHTS = frozenset({"gh", "zg", "hgt", "hgtprs", "orog", "geopotential_height", "edge_heights", "surface_altitude"})
"""Names and standard names of geopotentials that mean heights, in m where no unit is said."""
